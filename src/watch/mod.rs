//! Watching over the rack: a host that is lost is shut out, and its guests start elsewhere.

pub mod brain;
pub mod driver;
pub mod incident;
pub mod witness;
