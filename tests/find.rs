//! `pgark find` by the real program: what it finds is compared with pg_waldump, and what it says one should do is done.

mod harness;

mod find {
    mod damaged;
    mod golden;
    mod restoring;
    mod scene;
    mod waldump;
}
