//! Telling others: programs that get every event, a page that shows how it is, figures for a monitoring system.

mod listen;
mod metrics;
mod news;
mod sinks;
mod snapshot;
mod teller;

pub use listen::{Listener, Protection, bind};
pub use news::News;
pub use sinks::Sinks;
pub use snapshot::{HostSnapshot, Snapshot};
pub use teller::Teller;
