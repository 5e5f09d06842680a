//! Everything at once: clients that write down what they were told, servers that are killed and replaced, a repository
//! that goes away, backups, expiries, verifications; and restores to random moments, each compared with what the
//! database was then. See `docs/soak.md`.
//!
//! Seeded: `PGARK_CHAOS_SEED` makes the same choices again. How the threads and processes interleave is up to the
//! machine. `PGARK_CHAOS_SECONDS` says for how long; each scene, with a new cluster and a new repository, lasts five
//! minutes at most.

#[path = "chaos/churn.rs"]
mod churn;
#[path = "chaos/dice.rs"]
mod dice;
#[path = "chaos/jobs.rs"]
mod jobs;
#[path = "chaos/journal.rs"]
mod journal;
#[path = "chaos/kills.rs"]
mod kills;
#[path = "chaos/lanes.rs"]
mod lanes;
#[path = "chaos/ledger.rs"]
mod ledger;
#[path = "chaos/restoring.rs"]
mod restoring;
#[path = "chaos/stage.rs"]
mod stage;
#[path = "chaos/successions.rs"]
mod successions;
#[path = "chaos/world.rs"]
mod world;

// A check by the real program, and a receiver that runs: shared with the tests of both, which use all of them.
#[allow(dead_code)]
#[path = "check/scene.rs"]
mod checks;
mod harness;
#[allow(dead_code)]
#[path = "wal_receive/scene.rs"]
mod receiver;

use std::time::{Duration, Instant};

use dice::{Dice, say};
use harness::*;
use journal::Upto;
use stage::{EndsAll, Stage};
use successions::Ending;
use world::World;

/// In `make test`.
const SECONDS: u64 = 100;
const SCENE: Duration = Duration::from_secs(300);

type Event = fn(&mut World<'_>);

/// What happens, as a deck of cards: each comes as often as it is here before any comes again.
const CARDS: [(&str, Event); 27] = [
    ("the postmaster is killed", |world| world.kill_server(false)),
    ("the primary and all its processes are killed", |world| world.kill_server(true)),
    ("a server process is killed", |world| world.kill_backend()),
    ("a server process is killed", |world| world.kill_backend()),
    ("pushes are killed", |world| world.kill_pushes()),
    ("the standby is killed", |world| world.kill_standby()),
    ("the receiver is killed", |world| world.kill_receiver()),
    ("the receiver is killed", |world| world.kill_receiver()),
    ("the repository is away", |world| world.take_repository_away()),
    ("a backup begins", |world| world.start_backup()),
    ("a backup begins", |world| world.start_backup()),
    ("a backup begins", |world| world.start_backup()),
    ("a backup begins", |world| world.start_backup()),
    ("an expiry begins", |world| world.start_expiry()),
    ("an expiry begins", |world| world.start_expiry()),
    ("the content is written down", |world| world.record_content()),
    ("the content is written down", |world| world.record_content()),
    ("the content is written down", |world| world.record_content()),
    ("a segment ends, and a checkpoint", |world| world.switch_and_checkpoint()),
    ("commits wait for the receiver", |world| world.guard()),
    ("commits wait for nobody", |world| world.unguard()),
    ("the primary is killed and the standby promoted", |world| world.fail_over(Ending::Killed)),
    ("the primary stops and the standby is promoted", |world| world.fail_over(Ending::Stopped)),
    ("the standby is promoted and the primary fenced", |world| world.fail_over(Ending::Fenced)),
    ("back to some moment", |world| world.go_back()),
    ("the primary's disk is lost", |world| world.lose_the_disk()),
    ("all is verified", |world| world.jobs.verify(world.timeline())),
];

#[test]
fn whatever_is_killed_every_restore_has_what_was_acknowledged_and_nothing_else() {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
    };
    let seconds = Duration::from_secs(number("PGARK_CHAOS_SECONDS").unwrap_or(SECONDS));
    let random =
        || Dice::new(u64::from(std::process::id()), &jiff::Timestamp::now().to_string()).number() >> 32;
    let first = number("PGARK_CHAOS_SEED").unwrap_or_else(random);
    let begun = Instant::now();
    for seed in first.. {
        let Some(left) = seconds.checked_sub(begun.elapsed()).filter(|left| left.as_secs() > 30) else {
            break;
        };
        let length = left.min(SCENE);
        say("chaos", &format!("PGARK_CHAOS_SEED={seed}, {} s, PostgreSQL {}", length.as_secs(), pg_major()));
        scene(seed, length);
    }
}

fn scene(seed: u64, length: Duration) {
    let deadline = Instant::now() + length;
    let (stage, repo) = (Stage::new(), TestRepo::init());
    let mut world = World::new(&stage, &repo, seed);
    std::thread::scope(|scope| {
        for number in 0..ledger::LANES {
            let lane = lanes::Lane::new(&stage, number, seed);
            scope.spawn(move || lane.work());
        }
        scope.spawn(|| churn::Churn::new(&stage, seed).work());
        let restorer = scope.spawn(|| restoring::Restorer::new(&stage, &repo, seed).work());
        let _ends = EndsAll(&stage);
        world.copy_standby();
        world.start_receiver();
        world.open(1);
        play(&mut world, deadline);
        let timeline = world.timeline();
        stage.close();
        stage.end();
        // What it looks at stays until it has ended.
        if let Err(panic) = restorer.join() {
            std::panic::resume_unwind(panic);
        }
        conclude(&mut world, timeline);
    });
    say("chaos", &format!("seed {seed}: {}, {} wal-push killed", stage.tally(), kills::pushes_killed(&repo)));
    assert!(stage.counted("restores compared") > 2, "hardly anything was compared: {}", stage.tally());
    assert!(stage.counted("commits acknowledged") > 100, "hardly anything was written: {}", stage.tally());
}

fn play(world: &mut World<'_>, deadline: Instant) {
    let mut deck = Vec::new();
    while Instant::now() < deadline && !world.stage.ended() {
        if deck.is_empty() {
            deck.extend(CARDS);
            world.dice.shuffle(&mut deck);
        }
        let (what, happen) = deck.pop().expect("a card");
        say("director", what);
        happen(world);
        let milliseconds = world.dice.within(100..=1200);
        world.pass(milliseconds);
    }
}

/// Nobody writes any more: the end of the archive is what the primary has.
fn conclude(world: &mut World<'_>, timeline: u32) {
    say("director", "the end");
    world.load = None;
    world.jobs.finish();
    world.primary.cluster.archive_everything();
    world.standby = None;
    if let Some(receiver) = world.receiver.take() {
        receiver.leave();
    }
    let content = world.primary.cluster.content();
    world.jobs.verify(timeline);
    let restored = world.restore(&[]);
    restored.cluster.assert_content(&content);
    let found = ledger::chains(&restored.cluster);
    world.stage.chronicle().journal(timeline).judge(&Upto::End, &found).expect("all that was acknowledged");
    restoring::assert_sound(&restored.cluster);
}
