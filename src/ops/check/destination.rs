//! Where archive_command archives to, as far as it says so itself.

use super::command::PushCommand;
use super::finding::Finding;
use super::settings::Way;
use crate::config::Config;
use crate::repo::Repository;

/// Whether that is this repository and cluster.
pub fn judge(config: &Config, way: &Way) -> Option<Finding> {
    const CHECK: &str = "destination";
    let Way::Command(text) = way else { return None };
    let push = PushCommand::parse(text).filter(PushCommand::names_anything)?;
    let theirs = match Config::resolve(&push.named) {
        Ok(theirs) => theirs,
        Err(error) => {
            tracing::info!("could not tell where archive_command archives to: {error}");
            return None;
        }
    };
    let wrong = |what: String| {
        Finding::critical(CHECK, what)
            .because("the WAL goes somewhere else, so no backup here can be restored to now")
            .remedy("give archive_command and this check the same repository and cluster name")
    };
    if theirs.cluster != config.cluster {
        let (theirs, ours) = (&theirs.cluster, &config.cluster);
        return Some(wrong(format!("archive_command archives cluster {theirs}, this check looks at {ours}")));
    }
    let (theirs, ours) = (theirs.repo().ok()?, config.repo().ok()?);
    if theirs == ours {
        return Some(Finding::ok(CHECK, format!("archive_command names this repository: {ours}")));
    }
    let id = |location| Repository::open(location, None).map(|repository| repository.id());
    match (id(theirs), id(ours)) {
        (Ok(one), Ok(other)) if one == other => {
            Some(Finding::ok(CHECK, format!("archive_command names this repository as {theirs}")))
        }
        (_, Err(_)) => None,
        _ => Some(wrong(format!("archive_command archives to {theirs}, this check looks at {ours}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_command_that_names_another_repository_or_cluster_is_told() {
        let (ours, other) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        for dir in [&ours, &other] {
            let location =
                crate::location::Location::parse(&dir.path().display().to_string()).expect("location");
            crate::repo::init(&location).expect("made");
        }
        let empty = ours.path().join("empty.toml");
        std::fs::write(&empty, "").expect("written");
        let overrides = crate::config::Overrides {
            file: Some(empty.clone()),
            repo: Some(ours.path().display().to_string()),
            ..crate::config::Overrides::default()
        };
        let config = Config::resolve(&overrides).expect("a configuration");
        let level = |arguments: &str| {
            let command = format!("wal-push --config {} {arguments} %p", empty.display());
            judge(&config, &Way::Command(command)).map(|finding| finding.level)
        };
        assert_eq!(level(&format!("--repo {}", ours.path().display())), Some(Level::Ok));
        assert_eq!(level(&format!("--repo {}/", ours.path().display())), Some(Level::Ok));
        assert_eq!(level(&format!("--repo {}", other.path().display())), Some(Level::Critical));
        assert_eq!(level(&format!("--repo {} --cluster x", ours.path().display())), Some(Level::Critical));
        assert_eq!(level("--repo /nowhere/at/all"), Some(Level::Critical));
        assert_eq!(judge(&config, &Way::Command("wal-push %p".into())), None);
    }
}
