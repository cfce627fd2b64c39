//! The rules of the protocol, each a switch, and the faults that may happen.

/// The rules that keep a guest from running twice. A test drops each and finds what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a rule of its own")]
pub struct Rules {
    /// R1: a claim is taken over in place, with the same hosts, before its hosts are looked at.
    pub take_over_first: bool,
    /// R1: a look at the hosts of a claim that was taken over raises their floor in the same step.
    pub raise_floor: bool,
    /// R2: a host compares the generation of a request to create with its floor.
    pub guard_create: bool,
    /// R2 and R5: the same for a request to resume.
    pub guard_resume: bool,
    /// R2: the same for a request to migrate.
    pub guard_migrate: bool,
    /// R2: the same for requests to destroy and to suspend.
    pub guard_end: bool,
    /// R2: every write of a claim raises its generation, `running where it was` included.
    pub every_write_raises: bool,
    /// R2: a move raises the floor of its target before it is asked for.
    pub raise_target: bool,
    /// R3: the source's floor is raised before `stayed` or `gone` is believed.
    pub revoke_first: bool,
    /// R4: the outcome of a move is written only over the very claim that was followed.
    pub exact_write_down: bool,
    /// R4: a claim is freed only after its hosts were looked at.
    pub look_before_free: bool,
    /// A start makes the guest standing still.
    pub create_paused: bool,
    /// A start reads its claim once more before it lets the guest go on.
    pub read_again: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Rules = Rules {
        take_over_first: true,
        raise_floor: true,
        guard_create: true,
        guard_resume: true,
        guard_migrate: true,
        guard_end: true,
        every_write_raises: true,
        raise_target: true,
        revoke_first: true,
        exact_write_down: true,
        look_before_free: true,
        create_paused: true,
        read_again: true,
    };

    /// Only what there was before: a start in two halves, and claims that are waited out.
    pub const NONE: Rules = Rules {
        take_over_first: false,
        raise_floor: false,
        guard_create: false,
        guard_resume: false,
        guard_migrate: false,
        guard_end: false,
        every_write_raises: false,
        raise_target: false,
        revoke_first: false,
        exact_write_down: false,
        look_before_free: false,
        create_paused: true,
        read_again: true,
    };
}

/// What can go wrong. What comes back (a network, a host) does so at any later time and is no fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
pub struct Faults {
    /// A host is cut off the management network.
    pub management: bool,
    /// A host is cut off the storage network.
    pub storage: bool,
    /// A host is cut off both at once.
    pub both: bool,
    /// A host loses power.
    pub power: bool,
    /// The process of a run dies.
    pub crash: bool,
    /// The link between two libvirt daemons breaks in a move.
    pub link: bool,
    /// libvirt lets the source go on though the target runs: its last handshake was lost. No rule closes this one.
    pub revival: bool,
}
