//! `pgark check` by the real program on real servers: break one thing, and it must be found, with the exit status
//! of a monitoring plugin.

mod harness;

mod check {
    mod repository;
    mod scene;
    mod server;
}
