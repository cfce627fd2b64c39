//! Baseboard management controllers: so far to be looked at only.

mod ask;
mod bmc;
mod ipmi;
mod redfish;
mod state;

pub use ask::ask;
pub use bmc::query_bmc;
pub use state::{BmcError, BmcState, Power};
