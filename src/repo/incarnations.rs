//! The incarnations of a cluster in a repository: pg_upgrade and initdb make a new one, with a system
//! identifier of its own. Whoever names a cluster means all of them, or the one that is asked for.

use super::layout::Name;
use super::{Cluster, ClusterHeader, Repository};
use crate::error::{Error, Kind, Result};
use crate::pg::lsn::SystemId;
use crate::store::Key;

/// The incarnations of the cluster `name`, lowest system identifier first, or the one that is `wanted`. Never
/// empty: [`Kind::NotFound`] says what there is instead.
pub fn find(
    repository: &Repository,
    name: &Name,
    wanted: Option<SystemId>,
) -> Result<Vec<(Cluster, ClusterHeader)>> {
    let known = repository.system_ids(name)?;
    let ids = wanted.map_or_else(|| known.clone(), |wanted| vec![wanted]);
    let mut found = Vec::new();
    for id in ids {
        let cluster = repository.cluster(name, id);
        match cluster.header() {
            Ok(header) => found.push((cluster, header)),
            // A directory in which nothing was archived yet, unless it was asked for.
            Err(error) if error.kind() == Kind::NotFound && wanted.is_none() => {}
            Err(error) if error.kind() == Kind::NotFound => return Err(no_incarnation(name, id, &known)),
            Err(error) => return Err(error),
        }
    }
    // A repository that has gone looks like one without clusters.
    repository.confirm()?;
    if found.is_empty() {
        return Err(no_cluster(repository, name)?);
    }
    Ok(found)
}

/// The clusters that a repository holds, by name.
pub fn clusters(repository: &Repository) -> Result<Vec<Name>> {
    let prefixes = repository.store().level(&Key::root())?.prefixes;
    let mut names = Vec::new();
    for name in prefixes.iter().filter_map(|prefix| prefix.last().parse::<Name>().ok()) {
        if !repository.system_ids(&name)?.is_empty() {
            names.push(name);
        }
    }
    repository.confirm()?;
    Ok(names)
}

fn no_cluster(repository: &Repository, name: &Name) -> Result<Error> {
    let error = Error::not_found(format!("the repository has no cluster {name}"));
    let known: Vec<String> = clusters(repository)?.iter().map(ToString::to_string).collect();
    Ok(match known.is_empty() {
        true => error.with_hint("nothing was archived into it yet"),
        false => error.with_hint(format!("it has these: {}; name one with --cluster", known.join(", "))),
    })
}

fn no_incarnation(name: &Name, wanted: SystemId, known: &[SystemId]) -> Error {
    let error =
        Error::not_found(format!("the repository has no cluster {name} with system identifier {wanted}"));
    let known: Vec<String> = known.iter().map(ToString::to_string).collect();
    match known.is_empty() {
        true => error.with_hint("it has none of that name"),
        false => error.with_hint(format!("it has these: {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::lsn::SegmentSize;
    use crate::repo::fixture::{Fixture, name};

    fn archived(repository: &Repository, cluster: &str, id: u64) {
        let header = ClusterHeader {
            version: 1,
            system_id: SystemId(id),
            postgres_major: 15,
            segment_size: SegmentSize::try_from(16 << 20).expect("size"),
            wal_block_size: 8192,
        };
        repository.cluster(&name(cluster), SystemId(id)).ensure_header(&header).expect("created");
    }

    #[test]
    fn a_name_means_all_incarnations_or_the_one_that_is_asked_for() {
        let fixture = Fixture::create();
        let repository = fixture.cluster.repository();
        let ids = |name_: &str, wanted| {
            find(repository, &name(name_), wanted)
                .map(|found| found.iter().map(|(cluster, _)| cluster.system_id().0).collect::<Vec<_>>())
        };
        let nothing = ids("main", None).expect_err("nothing was archived");
        assert_eq!(nothing.hint(), Some("nothing was archived into it yet"));
        archived(repository, "main", 7);
        archived(repository, "main", 9);
        archived(repository, "other", 8);
        std::fs::create_dir_all(fixture.dir.path().join("main/11/wal")).expect("made");
        assert_eq!(ids("main", None), Ok(vec![7, 9]));
        assert_eq!(ids("main", Some(SystemId(9))), Ok(vec![9]));
        let missing = ids("main", Some(SystemId(8))).expect_err("of another cluster");
        assert_eq!(missing.kind(), Kind::NotFound);
        assert!(missing.hint().is_some_and(|hint| hint.contains("7, 9")), "{missing:?}");
        let unknown = ids("mian", None).expect_err("unknown");
        assert!(unknown.hint().is_some_and(|hint| hint.contains("main, other")), "{unknown:?}");
        assert_eq!(clusters(repository), Ok(vec![name("main"), name("other")]));
    }
}
