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
    /// R13: a move's target stands still until the source was seen gone; then it is let go on.
    pub move_paused: bool,
    /// R6: a host is fenced before its guests start elsewhere.
    pub fence_first: bool,
    /// R6: every client that is known on it is blocklisted by itself as well.
    pub list_clients: bool,
    /// R7: all OSDs have the map before anything is believed.
    pub barrier: bool,
    /// R6: the other hosts take no migration from it, and cut those under way.
    pub close_incoming: bool,
    /// R6: every other host does so, or is fenced itself.
    pub close_everywhere: bool,
    /// R10: the living side of a move refuses as well, from the look at it on.
    pub close_at_look: bool,
    /// R6: a host that restarts still refuses.
    pub close_lastingly: bool,
    /// R6: the claim is read and the hosts are looked at after all that.
    pub look_after_fence: bool,
    /// R6: the fence is looked at again after the claim was read.
    pub fence_again: bool,
    /// R6: the claim is swapped over exactly what was read.
    pub exact_swap: bool,
    /// R9: the lock is broken of exactly the client that was seen to hold it on the fenced host.
    pub exact_locker: bool,
    /// R10: a move that has lost a side is taken over, and older requests are revoked on the living side.
    pub revoke_living: bool,
    /// R10: a source that has handed over ends; it never goes on.
    pub end_handed_over: bool,
    /// R10: a source that runs, and whose migration is `completed`, ends.
    pub end_revived: bool,
    /// R10: a copy that was arriving ends; it never goes on.
    pub end_incoming: bool,
    /// R11: a copy on a fenced host never counts, also when the host answers.
    pub fenced_never_counts: bool,
    /// R12: a host that the claim names is not let in.
    pub readmit_reads_claim: bool,
    /// R12: its floor is raised first.
    pub readmit_raises_floor: bool,
    /// R12: each old copy is ended, and seen gone.
    pub readmit_ends_copies: bool,
    /// R12: a fence is lifted only if it is the one that was looked at, in bounded time.
    pub lift_bounded: bool,
    /// R12: clients that are blocklisted by themselves stay so.
    pub entries_stay: bool,
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
        move_paused: false,
        fence_first: true,
        list_clients: true,
        barrier: true,
        close_incoming: true,
        close_everywhere: true,
        close_at_look: false,
        close_lastingly: true,
        look_after_fence: true,
        fence_again: true,
        exact_swap: true,
        exact_locker: true,
        revoke_living: true,
        end_handed_over: true,
        end_revived: true,
        end_incoming: true,
        fenced_never_counts: true,
        readmit_reads_claim: true,
        readmit_raises_floor: true,
        readmit_ends_copies: true,
        lift_bounded: true,
        entries_stay: true,
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
        ..Rules::ALL
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
