//! Commands on hosts: one runner, deadlines on both ends, at most four in flight a host.

mod control;
mod diagnose;
mod exec;
mod fake;
mod fleet;
mod gate;
mod host_key;
mod interactive;
mod job;
mod lines;
mod local;
mod master;
mod session;
mod upload;
mod words;

pub use exec::{Channel, ChannelIn, ChannelOut, Exec, Output, Remote, RemoteError, RemoteExt};
pub use fake::FakeRemote;
pub use fleet::Fleet;
pub use host_key::HostKey;
pub use interactive::interactive;
pub use job::{Job, JobState, JobStatus};
pub use lines::LineChannel;
pub use local::LocalHost;
pub use upload::{Upload, UploadExt};
