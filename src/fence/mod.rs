//! Shutting a host out: at the storage, and by its power through its baseboard management controller.

mod ask;
mod bmc;
mod ipmi;
mod proof;
mod redfish;
mod state;

pub use ask::ask;
pub use bmc::query_bmc;
pub use proof::{PowerProof, StorageProof};
pub use state::{BmcError, BmcState, Power};
