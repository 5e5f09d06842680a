//! What `pgark expire` prints, and how it ends.

use crate::harness::*;
use crate::scene::*;

#[test]
fn the_text_shows_the_plan_and_what_was_done() {
    let scene = Scene::new();
    let text =
        |more: &[&str]| run(scene.repo.pgark(&["expire"]).args(scene.arguments()).args(more)).succeeds();
    let before = state(&scene.repo);
    let dry = text(&["--dry-run"]);
    assert_eq!(state(&scene.repo), before, "a dry run leaves nothing and takes nothing");
    for part in [
        "one",
        "pinned",
        "delete",
        "no rule keeps it",
        "the recovery window begins with it",
        "WAL that goes: ",
    ] {
        assert!(dry.contains(part), "{part}: {dry}");
    }
    assert!(dry.contains("frees ") && dry.ends_with("dry run: nothing was deleted\n"), "{dry}");
    let done = text(&[]);
    let plan = dry.split("\ndry run").next().expect("a plan");
    assert!(done.starts_with(plan), "{done}\n{plan}");
    assert!(done.contains("deleted 2 backups, ") && done.trim_end().ends_with("free"), "{done}");
    assert!(!done.contains('\u{1b}'), "no colours where nobody looks");
    let again = text(&[]);
    assert!(again.contains("nothing goes") && again.contains("nothing was deleted"), "{again}");
}

#[test]
fn without_a_rule_nothing_is_deleted_and_rules_may_be_configured() {
    let scene = Scene::new();
    run(&mut scene.repo.pgark(&["expire"])).fails_with(2, "no rule says what to keep");
    run(&mut scene.repo.pgark(&["expire", "--keep-last", "0"])).fails_with(2, "keep-last");
    assert_eq!(headers(&scene.repo).len(), 5);
    scene.repo.configure("[expire]\nkeep_last = 4");
    let said = expire(&scene.repo, &["--dry-run"]);
    assert_eq!(labels(&said, false), Vec::<String>::new(), "the first is pinned");
    let said = expire(&scene.repo, &["--keep-last", "1"]);
    assert_eq!(labels(&said, false), ["two", "three", "four"]);
}

#[test]
fn root_is_refused_in_a_repository_of_another_user() {
    if !is_root() {
        eprintln!("skipped: this is about root");
        return;
    }
    let scene = Scene::new();
    let mut command = std::process::Command::new(program_path("pgark"));
    command.env_clear().env("PGARK_CONFIG", scene.repo.config()).args(["expire", "--keep-last", "1"]);
    let output = command.output().expect("ran");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("this runs as root"), "{said}");
    assert_eq!(headers(&scene.repo).len(), 5);
    // What root may do leaves what the server's user can read and delete.
    let mut command = std::process::Command::new(program_path("pgark"));
    command.env_clear().env("PGARK_CONFIG", scene.repo.config()).args(["pin", "two"]);
    assert!(command.output().expect("ran").status.success());
    for key in scene.repo.matching("/pin/") {
        let metadata = std::fs::metadata(scene.repo.path(&key)).expect("there");
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), server_user().uid, "{key}");
    }
    assert_eq!(labels(&scene.expire(), false), ["three"]);
}
