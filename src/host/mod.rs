//! A host as it is, gathered in one round trip, and as the inventory wants it.

mod block;
mod check;
mod clock;
mod disks_check;
mod facts;
mod finding;
mod gather;
mod network_check;
mod nics;
mod own_bmc;
mod parse;
mod paths;
mod sections;
mod system;

pub use check::{BmcSeen, SKEW, Seen, evaluate};
pub use clock::clock;
pub use facts::*;
pub use finding::{Finding, Severity};
pub use gather::{Section, gather, look};
pub use own_bmc::{OwnBmc, own_bmc};
pub use paths::{Net, Paths, Way, probe};
pub use system::{Family, family};
