//! `pgark find` by the real program: what it finds is compared with pg_waldump, and what it says one should do is done.

mod harness;

mod find {
    mod damaged;
    mod golden;
    mod printed;
    mod restoring;
    mod scene;
    mod timelines;
    mod waldump;
}

// What the tests of wal-receive need besides is of no use here.
#[allow(dead_code)]
#[path = "wal_receive/scene.rs"]
mod receiving;
