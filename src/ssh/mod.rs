//! Commands on hosts: one runner, deadlines on both ends, at most four in flight a host.

mod arguments;
mod channel;
mod command_line;
mod connect_limit;
mod control;
mod diagnose;
mod effective;
mod error;
mod exec;
mod fake;
#[cfg(test)]
mod faulty;
mod fleet;
mod forward;
mod host_key;
mod interactive;
mod job;
mod jump;
mod lines;
mod local;
mod marked;
mod master;
mod quote;
mod roll_call;
mod session;
mod sshd_limits;
mod upload;

pub use channel::{Channel, ChannelEnd, ChannelIn, ChannelOut};
pub use error::RemoteError;
pub use exec::{Exec, Output, Remote, RemoteExt};
pub use fake::FakeRemote;
#[cfg(test)]
pub(crate) use faulty::{Blow, FaultyRemote, Trap};
pub use fleet::Fleet;
pub use forward::Forward;
pub use host_key::HostKey;
pub use interactive::interactive;
pub use job::{Job, JobState, JobStatus};
pub use lines::LineChannel;
pub use local::LocalHost;
pub use quote::{join, quote};
pub use roll_call::RollCall;
pub use sshd_limits::{SshdLimits, sshd_limits, why_refused};
pub use upload::{Upload, UploadExt};
