//! The fault toolkit of the harness: if these fail, no crash test means anything.

mod harness;

use harness::*;

/// Three writes, a sync and a rename, by a shell and the programs that it starts or, with `exec`, becomes.
fn shell(script: &str, dir: &Scratch) -> std::process::Command {
    let mut command = command("/bin/bash");
    command.args(["-c", script]).current_dir(dir.path());
    command
}

#[test]
fn calls_are_counted_in_order_with_their_paths() {
    let dir = Scratch::new();
    let script = "echo a > one; echo b >> one; echo visible; exec mv one two";
    let (outcome, calls) = run_with_fault(shell(script, &dir), Fault::none().under(dir.path()));
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert_eq!(outcome.stdout, "visible\n");
    let names: Vec<_> = calls.iter().map(|call| call.name).collect();
    assert_eq!(names[..4], ["openat", "write", "openat", "write"], "{calls:?}");
    assert!(names[4].starts_with("rename"), "{calls:?}");
    assert_eq!(calls[1].path, dir.join("one"));
    assert_eq!(calls[4].path, dir.join("two"));
}

#[test]
fn a_killed_program_did_what_came_before_and_nothing_after() {
    let script = "echo a > one; echo b > two; echo c > three";
    for n in 1..=6 {
        let dir = Scratch::new();
        let (outcome, calls) = run_with_fault(shell(script, &dir), Fault::kill_at(n).under(dir.path()));
        assert_eq!(outcome.code, None, "{outcome}");
        assert_eq!(calls.len(), n);
        let content = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        let expected = [("one", "a\n"), ("two", "b\n"), ("three", "c\n")];
        for (position, (name, text)) in expected.into_iter().enumerate() {
            assert_eq!(content(name) == text, n > 2 * (position + 1), "{name} when killed at {n}");
        }
    }
}

#[test]
fn a_failed_call_is_not_made_and_reports_the_error() {
    let dir = Scratch::new();
    let script = "echo a > one; echo b > two; echo c > three";
    let only_writes = |fault: Fault| fault.under(dir.path()).only(&["write"]);
    let (outcome, _) = run_with_fault(shell(script, &dir), only_writes(Fault::fail_at(2, Errno::NOSPC)));
    assert!(outcome.stderr.contains("No space left on device"), "{outcome}");
    let content = |name: &str| std::fs::read_to_string(dir.join(name)).expect("read");
    assert_eq!((content("one"), content("two"), content("three")), ("a\n".into(), "".into(), "c\n".into()));
    let (outcome, _) = run_with_fault(shell(script, &dir), only_writes(Fault::fail_from(2, Errno::IO)));
    assert!(outcome.stderr.contains("Input/output error"), "{outcome}");
    assert_eq!((content("one"), content("two"), content("three")), ("a\n".into(), "".into(), "".into()));
}

#[test]
fn what_the_program_starts_is_left_alone() {
    let dir = Scratch::new();
    let script = "(echo a > one); echo b > two";
    let (outcome, calls) = run_with_fault(shell(script, &dir), Fault::none().under(dir.path()));
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(calls.iter().all(|call| call.path == dir.join("two")), "{calls:?}");
    assert!(dir.join("one").exists());
}

#[test]
fn a_small_disk_fills_up_and_can_go_away() {
    let Some(mut disk) = SmallDisk::mount(1 << 20) else { return };
    let fill = |path: &std::path::Path| {
        command("/bin/dd")
            .args(["if=/dev/zero", "bs=64k", "count=32"])
            .arg(format!("of={}", path.display()))
            .output()
    };
    let output = fill(&disk.path().join("file")).expect("run dd");
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left on device"), "{output:?}");
    disk.unmount();
    assert!(!disk.path().join("file").exists());
}

#[test]
fn a_read_only_directory_is_writable_again_afterwards() {
    let dir = Scratch::new();
    let touch = || command("/usr/bin/touch").arg(dir.join("file")).status().expect("run touch").success();
    {
        let Some(_guard) = ReadOnly::mount(dir.path()) else { return };
        assert!(!touch());
    }
    assert!(touch());
}
