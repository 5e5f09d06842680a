//! What happens between the plan of an expiry and its first deletion: it is stopped while it prints the plan.

use std::process::Stdio;

use crate::harness::*;
use crate::scene::*;

/// How the expiry ends after something has happened meanwhile.
fn after(scene: &Scene, meanwhile: impl FnOnce()) -> (Option<i32>, String) {
    let (child, mut plan) = stopped_expiry(&scene.repo, &scene.arguments());
    meanwhile();
    let mut printed = Vec::new();
    std::io::Read::read_to_end(&mut plan, &mut printed).expect("read");
    let output = child.wait_with_output().expect("waited");
    let printed = String::from_utf8_lossy(&printed).trim_start_matches('x').to_owned();
    (output.status.code(), format!("{printed}{}", String::from_utf8_lossy(&output.stderr)))
}

/// All but leases.
fn kept(repo: &TestRepo) -> Vec<String> {
    state(repo).into_iter().filter(|key| !key.contains("/lease/")).collect()
}

#[test]
fn one_that_was_taken_for_dead_deletes_nothing_when_it_wakes() {
    let scene = Scene::new();
    let before = kept(&scene.repo);
    let (code, said) = after(&scene, || {
        scene.repo.matching("/lease/").iter().for_each(|key| scene.repo.damage(key, Damage::Delete));
    });
    assert!(code == Some(4) && said.contains("lost the lease of the expiry"), "{said}");
    assert_eq!(kept(&scene.repo), before);
}

#[test]
fn a_backup_that_is_pinned_in_between_stays_with_its_wal() {
    let scene = Scene::new();
    let (code, said) = after(&scene, || drop(run(&mut scene.repo.pgark(&["pin", "two"])).succeeds()));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("left to the next run: backup two: it was pinned meanwhile"), "{said}");
    assert!(said.contains("left to the next run: WAL: backup two is still there"), "{said}");
    assert_eq!(headers(&scene.repo), ["five", "four", "one", "two"]);
    let verified = run(&mut scene.repo.pgark(&["verify"]));
    assert_eq!(verified.code, Some(0), "{verified}");
}

#[test]
fn when_headers_vanish_in_between_nothing_is_deleted() {
    let scene = Scene::new();
    let before = kept(&scene.repo);
    let cluster = scene.repo.path(&scene.repo.only("cluster.json"));
    let place = cluster.with_file_name("backup");
    let aside = cluster.with_file_name("aside");
    let (code, said) = after(&scene, || std::fs::rename(&place, &aside).expect("unmounted"));
    std::fs::rename(&aside, &place).expect("mounted");
    assert!(code == Some(4) && said.contains("has no header any more"), "{said}");
    assert_eq!(kept(&scene.repo), before);
}

#[test]
fn another_backup_under_an_expired_label_stays() {
    let scene = Scene::new();
    let key = scene.repo.only("/backup/two/backup.json");
    let (code, said) = after(&scene, || {
        // As if it had been deleted and made again: by another run.
        let other = scene.repo.read(&scene.repo.only("/backup/three/backup.json"));
        let text = String::from_utf8(scene.repo.read(&key)).expect("UTF-8");
        let member = |bytes: &str| {
            let json: serde_json::Value = serde_json::from_str(bytes).expect("JSON");
            json["run"].as_str().expect("a run").to_owned()
        };
        let text = text.replace(&member(&text), &member(&String::from_utf8(other).expect("UTF-8")));
        scene.repo.damage(&key, Damage::Delete);
        scene.repo.scratch().write(scene.repo.path(&key), text);
    });
    // Its digest shows that this one was made by a test; a real one would be told apart by its run.
    assert!(code == Some(5) && said.contains("backup/two/backup.json"), "{said}");
    assert!(headers(&scene.repo).contains(&"two".to_owned()));
    scene.expect_kept("then");
}

#[test]
fn a_restore_that_begins_in_between_waits_and_then_gets_all_that_it_chose() {
    let scene = Scene::new();
    let scratch = Scratch::new();
    let mut restore = None;
    let (code, said) = after(&scene, || {
        let mut command = scene.repo.std_program("bootstrap-restore");
        command.arg("-D").arg(scratch.join("data")).arg("--socket-dir").arg(scratch.make_dir("s"));
        // To the end of the archive: through WAL that the plan deletes.
        command.args(["--backup", "one"]).stdout(Stdio::null()).stderr(Stdio::piped());
        restore = Some(command.spawn().expect("started"));
        wait_for_lease(&scene.repo, "restore");
    });
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("left to the next run: WAL: a restore one began"), "{said}");
    let output = restore.expect("started").wait_with_output().expect("waited");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    Cluster::adopt(&scratch.join("data")).assert_content(&scene.facts.end);
    assert_eq!(headers(&scene.repo), ["five", "four", "one"]);
    scene.expire();
    scene.expect_kept("then");
}
