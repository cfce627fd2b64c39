//! Commands on hosts: one runner, deadlines on both ends, at most four in flight a host.

mod exec;
mod fake;
mod fleet;
mod session;

pub use exec::{Channel, Exec, Output, Remote, RemoteError, RemoteExt};
pub use fake::FakeRemote;
pub use fleet::Fleet;
