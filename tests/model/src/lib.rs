//! An explicit-state model of the protocol of claims, starts, moves and fences: every state that one guest, two or three hosts
//! and two or three runs of the tool can reach, with the faults that may happen in between.
//!
//! Each read of the claim, each compare-and-swap, each look at a host and each request is a step of its own. A request
//! arrives at any later time, also after its sender is gone. Each step names the function in `src/` that it stands for;
//! `docs/protocol.md` says in plain words what the rules are, and what the model leaves out.
//!
//! It is a package of its own because it needs nothing of the library, and because it is built with optimisation.

mod failover;
mod faults;
mod fence_setups;
mod fingerprint;
mod launch;
mod libvirt;
mod mend;
mod moves;
mod readmit;
mod resolve;
mod rules;
mod search;
mod settlement;
mod setups;
mod start;
mod state;
mod stop;
mod transfer;

pub use fence_setups::{
    dropped_fences, large_dropped_fences, large_fences, paused_moves, redundant_fences, small_fences,
};
pub use mend::{Mend, mend};
pub use moves::Setup;
pub use rules::{Faults, Rules};
pub use search::{Ended, Outcome, search};
pub use setups::{Case, Expected, dropped, large, redundant, small_moves, small_starts, without_rules};
pub use state::{Command, State};
