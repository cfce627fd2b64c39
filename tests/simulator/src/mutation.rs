//! Bugs that are planted on purpose, to see that they are found.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The judgement needs no peer that does not reach the host.
    NoPeers,
    /// The watch acts on any number of hosts at once.
    NoHold,
    /// A fence counts as proven before all OSDs have seen it.
    NoBarrier,
    /// Healthy hosts go on taking migrations from a fenced host.
    OpenGate,
    /// Hosts carry out requests that are older than their floor.
    NoFloor,
    /// Readmission does not end the copies that are left, and clients were not blocklisted one by one.
    DirtyReadmit,
    /// Entries of the journal that cannot be written at once are dropped.
    DropsJournal,
    /// A claim is freed and gone on with without looking at the living hosts that it names.
    NoLook,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 8] = [
        Mutation::NoPeers,
        Mutation::NoHold,
        Mutation::NoBarrier,
        Mutation::OpenGate,
        Mutation::NoFloor,
        Mutation::DirtyReadmit,
        Mutation::DropsJournal,
        Mutation::NoLook,
    ];
}
