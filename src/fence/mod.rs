//! Shutting a host out: at the storage, and by its power through its baseboard management controller.

mod ask;
mod blocklist;
mod bmc;
mod gate;
mod ipmi;
mod power;
mod proof;
mod record;
mod redfish;
mod rehearsal;
mod state;
mod storage;

pub use ask::ask;
pub use bmc::query_bmc;
pub use gate::{close_gate, open_gate};
pub use power::{NoPower, power_off};
pub use proof::{PowerProof, StorageProof, address_of};
pub use record::{FenceRecord, Fences, add_power, begin_to_lift, records, refused_hosts, standing, was_begun, write};
pub use rehearsal::{PathTested, Rehearsal, rehearsals, rehearse};
pub use state::{BmcError, BmcState, Power};
pub use storage::{FenceError, Fencing, Stage, free_image, lift, refuse_clients};
