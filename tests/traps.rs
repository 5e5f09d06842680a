//! Traps that no other test is about: a machine that was cloned, a standby's backup that becomes a primary elsewhere,
//! clocks that jump. `docs/traps.md` names the tests of all.

mod harness;

#[path = "traps/clocks.rs"]
mod clocks;
#[path = "traps/clones.rs"]
mod clones;
