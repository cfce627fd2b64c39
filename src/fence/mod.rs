//! Baseboard management controllers: so far to be looked at only.

mod bmc;

pub use bmc::{BmcError, BmcState, Power, look};
