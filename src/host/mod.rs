//! A host as it is, gathered in one round trip, and as the inventory wants it.

mod block;
mod check;
mod disks_check;
mod facts;
mod network_check;
mod nics;
mod own_bmc;
mod parse;
mod paths;
mod system;

pub use check::{BmcSeen, Finding, Seen, Severity, evaluate};
pub use facts::*;
pub use own_bmc::{OwnBmc, own_bmc};
pub use paths::{Net, Paths, Way, clock, probe};
pub use system::{Family, family};
