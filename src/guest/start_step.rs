//! How far the start of a guest has come, for whoever follows it.

/// How far the start of a guest has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartStep {
    /// It has a place: this host.
    Planned(String),
    /// Its claim names its host.
    Claimed,
    /// No other client holds the lock of its disks.
    LockFreed,
    /// Its QEMU is there, and stands still.
    Made,
    /// It runs, on this host.
    Running(String),
    /// It does not run, and why.
    Waiting(String),
}

impl StartStep {
    /// It in a word, as events and incidents have it.
    pub fn word(&self) -> &'static str {
        match self {
            StartStep::Planned(_) => "planned",
            StartStep::Claimed => "claimed",
            StartStep::LockFreed => "lock-freed",
            StartStep::Made => "made",
            StartStep::Running(_) => "running",
            StartStep::Waiting(_) => "waiting",
        }
    }

    /// It in a sentence without the guest's name.
    pub fn text(&self) -> String {
        match self {
            StartStep::Planned(host) => format!("starts on {host}"),
            StartStep::Claimed => "its claim names its new host".to_owned(),
            StartStep::LockFreed => "the lock of its disks is free".to_owned(),
            StartStep::Made => "its QEMU is there, standing still".to_owned(),
            StartStep::Running(host) => format!("runs on {host}"),
            StartStep::Waiting(why) => why.clone(),
        }
    }
}

/// Is told how far the starts of guests have come: the guest's name, and the step.
pub type FollowStarts = dyn Fn(&str, &StartStep) + Send + Sync;
