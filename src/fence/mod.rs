//! Baseboard management controllers: so far to be looked at only.

mod ask;
mod bmc;

pub use ask::ask;
pub use bmc::{BmcError, BmcState, Power, look};
