//! What a run acknowledges is durable by name as well, also what an earlier run made and was killed before it could
//! sync that: after a new name comes a sync of its directory, by the one or by the other. File systems sync more than
//! they are asked to, so that this is looked at in the calls, not on a disk.

mod harness;
mod wal;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::*;
use wal::*;

/// Names that need not last: locks, what is being written, what `init` tries out, and how a receiver is.
fn is_passing(path: &Path) -> bool {
    let text = path.to_string_lossy();
    ["#", "/lock", "/probe-", ".pgark-tmp", "/status.json"].iter().any(|part| text.contains(part))
}

/// Kills a first run at its n-th change, lets a second one end well, and looks at the changes of both.
#[track_caller]
fn expect_durable_names(first: Command, second: Command, under: &Path, n: usize) -> usize {
    let (outcome, mut calls) = run_with_fault(first, Fault::kill_at(n).under(under));
    let killed = outcome.code.is_none();
    if killed {
        // It was not made.
        calls.pop();
    }
    let limit = Some(Duration::from_secs(3));
    let (outcome, again) = run_with_fault_for(second, Fault::none().under(under), limit);
    outcome.succeeds();
    let others = calls.len();
    calls.extend(again);
    let makes = |call: &Call| ["mkdir", "link", "rename"].iter().any(|name| call.name.starts_with(name));
    for (at, made) in calls.iter().enumerate().filter(|(_, call)| makes(call) && call.path.exists()) {
        // Where a run tries a name that is there already, the earlier one made it.
        if is_passing(&made.path) || calls[at + 1..others.max(at + 1)].iter().any(|later| later == made) {
            continue;
        }
        let parent = made.path.parent().expect("a parent");
        let synced = calls[at..].iter().any(|call| call.name == "fsync" && call.path == parent);
        assert!(synced, "killed at {n}: the name of {made:?} is never made durable: {calls:#?}");
    }
    usize::from(killed)
}

#[test]
fn an_init_makes_what_a_killed_one_began_durable() {
    let mut kills = 0;
    for n in 1.. {
        let scratch = Scratch::new();
        let repo = TestRepo::at(Scratch::new(), scratch.join("new/repo"));
        let init = || {
            let mut init = repo.std_program("pgark");
            init.arg("init");
            init
        };
        if expect_durable_names(init(), init(), scratch.path(), n) == 0 {
            break;
        }
        kills += 1;
    }
    assert!(kills > 15, "{kills}");
}

#[test]
fn a_push_makes_what_a_killed_one_began_durable() {
    let name = wal().segments(2)[1];
    let server = ServerDir::with(&[name, "00000002.history"]);
    let mut kills = 0;
    for n in 1.. {
        let repo = TestRepo::init();
        let push = || server.push_command(&repo, name);
        if expect_durable_names(push(), push(), repo.root(), n) == 0 {
            break;
        }
        kills += 1;
    }
    assert!(kills > 30, "{kills}");
}

#[test]
fn a_receiver_makes_the_spool_that_a_killed_one_began_durable() {
    let server = Cluster::builder().wal_segment_mib(1).start();
    for n in 1..=6 {
        let repo = TestRepo::init();
        let spool = repo.scratch().make_dir("above").join("spool");
        let receive = || {
            let mut command = repo.std_program("wal-receive");
            command.envs(server.env()).arg("--spool").arg(&spool).args(["--slot", &format!("slot{n}")]);
            command
        };
        expect_durable_names(receive(), receive(), &repo.scratch().join("above"), n);
    }
}
