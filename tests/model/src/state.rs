//! What there is at one moment: the claim in RADOS, the hosts with their copies of the guest, the runs of the tool, and
//! the requests that are on their way.

/// Hosts a state has room for.
pub const HOSTS: usize = 3;
/// Runs of the tool a state has room for.
pub const RUNS: usize = 3;
/// OSDs there are: each takes a new map in its own time.
pub const OSDS: u8 = 2;
/// Requests that can be on their way at the same time; a run that wants to send another one waits.
pub const REQUESTS: usize = 4;

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum H {
    /// h1
    H1,
    /// h2
    H2,
    /// h3
    H3,
}

impl H {
    /// All there can be.
    pub const ALL: [H; HOSTS] = [H::H1, H::H2, H::H3];
}

/// A run of the tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum R {
    /// The first one.
    A,
    /// The second one.
    B,
    /// The third one.
    C,
    /// One that ended before the model begins.
    Earlier,
}

impl R {
    /// All that act.
    pub const ALL: [R; RUNS] = [R::A, R::B, R::C];
}

/// `guest::claim::Phase`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing runs it.
    #[default]
    Free,
    /// It is being started on `host`.
    Starting,
    /// It was seen running on `host`.
    Running,
    /// It is on its way from `host` to `target`.
    Moving,
}

/// `guest::claim::Claim`: compared as a whole, as `claim::swap` does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Grows with each change of hands.
    pub generation: u8,
    /// What its holder does.
    pub phase: Phase,
    /// Where the guest may run.
    pub host: Option<H>,
    /// Where else, while it moves.
    pub target: Option<H>,
    /// The run that wrote it.
    pub run: Option<R>,
}

impl Claim {
    /// Whether the guest may run on a host.
    pub fn names(&self, host: H) -> bool {
        self.host == Some(host) || self.target == Some(host)
    }

    /// Whether its writer may still act on it.
    pub fn pending(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Moving)
    }

    /// `Claim::freed`.
    #[must_use]
    pub fn freed(self) -> Claim {
        Claim { generation: self.generation + 1, phase: Phase::Free, host: None, target: None, run: self.run }
    }

    /// `Claim::starting`.
    #[must_use]
    pub fn starting(self, host: H, run: R) -> Claim {
        let generation = self.generation + 1;
        Claim { generation, phase: Phase::Starting, host: Some(host), target: None, run: Some(run) }
    }

    /// `Claim::moving`.
    #[must_use]
    pub fn moving(self, from: H, to: H, run: R) -> Claim {
        let generation = self.generation + 1;
        Claim { generation, phase: Phase::Moving, host: Some(from), target: Some(to), run: Some(run) }
    }

    /// `Claim::taken_over`: the same places and phase, in other hands.
    #[must_use]
    pub fn taken_over(self, run: R) -> Claim {
        Claim { generation: self.generation + 1, run: Some(run), ..self }
    }
}

/// What a QEMU process does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Does {
    /// There is none.
    #[default]
    Nothing,
    /// Made, and never let go on.
    Fresh,
    /// The guest runs.
    Runs,
    /// Memory arrives.
    Incoming,
    /// All memory has arrived; it was not let go on yet.
    Arrived,
    /// The source of a move that has sent everything, standing still.
    HandedOver,
    /// Stopped by an error of the storage.
    IoError,
    /// Suspended by the tool.
    Suspended,
}

impl Does {
    /// Whether there is a process.
    pub fn exists(self) -> bool {
        self != Does::Nothing
    }

    /// Whether it stands still for a reason that has nothing to do with moving (`Side::stands_by_itself`).
    pub fn stands_by_itself(self) -> bool {
        matches!(self, Does::Fresh | Does::IoError | Does::Suspended)
    }
}

/// A copy of the guest on a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Copied {
    /// What its QEMU does.
    pub does: Does,
    /// The other side of the migration job that runs on it.
    pub job: Option<H>,
    /// `query-migrate` says `completed`.
    pub completed: bool,
    /// Another copy has written since its memory was current.
    pub stale: bool,
    /// It holds the lock of the image.
    pub lock: bool,
    /// Ceph lists its watch on the image.
    pub watch: bool,
    /// Its client is blocklisted by itself, in a map that all OSDs have.
    pub blocklisted: bool,
    /// Its client is blocklisted by itself; not all OSDs have the map yet.
    pub listed: bool,
}

/// A host and its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// It has power and runs.
    pub up: bool,
    /// The tool reaches it.
    pub management: bool,
    /// It reaches the OSDs.
    pub storage: bool,
    /// The oldest generation whose requests it still carries out.
    pub floor: u8,
    /// Its addresses are blocklisted, as the mons have it.
    pub range: bool,
    /// Of two OSDs, how many refuse its addresses: each takes a new map when it gets it.
    pub osds: u8,
    /// Which fence it is, so that a second one is told from the first.
    pub fences: u8,
    /// It is written down that it is fenced: all OSDs have the map, and no other host takes a migration from it.
    pub proven: bool,
    /// The hosts that take no migration from it.
    pub closed: [bool; HOSTS],
    /// Its copy of the guest.
    pub copy: Copied,
}

/// What a host is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ask {
    /// Make a copy that stands still.
    Create,
    /// Let its copy go on.
    Resume,
    /// Migrate its copy to a host.
    Migrate(H),
    /// End its copy, as the operator wants.
    Destroy,
    /// End its copy, which a start or a move has left over.
    Clear,
    /// Stop its copy for now.
    Suspend,
    /// Lift the fence of the host: this one goes to the mons.
    Lift,
}

/// A request that is on its way to a host's libvirt. It arrives at any later time, also after its sender is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    /// To which host.
    pub to: H,
    /// The generation of the claim it rests on.
    pub generation: u8,
    /// What it asks for.
    pub ask: Ask,
    /// Its sender.
    pub from: R,
}

/// What a run was told about a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Look {
    /// It was not asked yet.
    #[default]
    Unasked,
    /// It did not answer.
    Silent,
    /// It said this.
    Seen {
        /// What its copy does.
        does: Does,
        /// Whether a job runs on it.
        job: bool,
        /// Whether `query-migrate` says `completed`.
        completed: bool,
    },
}

impl Look {
    /// What the copy does, when the host answered.
    pub fn does(self) -> Option<Does> {
        match self {
            Look::Seen { does, .. } => Some(does),
            Look::Unasked | Look::Silent => None,
        }
    }

    /// Whether a process was seen.
    pub fn exists(self) -> bool {
        self.does().is_some_and(Does::exists)
    }

    /// Whether the host said that it has none.
    pub fn absent(self) -> bool {
        self.does() == Some(Does::Nothing)
    }
}

/// What an operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Command {
    /// `guest start`
    #[default]
    Start,
    /// `guest stop --force`
    Stop,
    /// `migrate`
    Move,
    /// `migrate` of a guest whose earlier move was left half-done
    Finish,
    /// `failover` of a host that is silent, by an operator or a watcher
    Failover,
    /// `readmit`
    Readmit,
}

/// The next step of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum At {
    /// It has nothing to do.
    #[default]
    Idle,
    /// `start_one`: reads the claim anew.
    ReadClaim,
    /// `Survey::take`.
    DomainInventory,
    /// `nobody_has_it_open`.
    DiskUsers,
    /// `Starting::place`: writes the claim of a start.
    TakeClaim,
    /// `settle_running`.
    SettleRunning,
    /// `Launch::run`: asks the host to create the guest.
    SendCreate,
    /// `Launch::look_after`: sees what the host made.
    AwaitMade,
    /// `Launch::go_on`: reads the claim once more.
    ReadAgain,
    /// `Launch::let_go`: sees it run.
    AwaitRuns,
    /// `Launch::go_on`: writes that it runs.
    WriteRunning,
    /// `Launch::give_back`: takes its own claim over.
    GiveBack,
    /// `Settlement::first_look`, at the source.
    FirstSource,
    /// `Settlement::first_look`, at the target.
    FirstTarget,
    /// `Settlement::outlast`: waits, and takes the claim over in place.
    TakeOver,
    /// `Settlement::settle_start`: revokes older requests on the claim's host, and looks at it.
    RevokeHost,
    /// `Settlement::settle_move`: the same on the source.
    RevokeSource,
    /// The same on the target.
    RevokeTarget,
    /// `Settlement::resolve`: looks at the source.
    LookSource,
    /// Looks at the target, and judges.
    LookTarget,
    /// Takes its own claim over before it believes.
    TakeOwn,
    /// Revokes on the source before it believes.
    RevokeDoubt,
    /// `Settlement::act`: reads the claim, and clears up.
    Act,
    /// `Settlement::gone`: looks at the other hosts.
    Elsewhere,
    /// `Settlement::write`.
    Write,
    /// `stop_one`: sees it gone.
    AwaitGone,
    /// `stop_one`: frees the claim.
    Free,
    /// `Transfer::attempt`: reads the claim.
    MayBegin,
    /// Looks at both hosts.
    CheckHosts,
    /// Writes the claim of a move.
    ClaimMove,
    /// Revokes older requests on the target.
    RaiseTarget,
    /// `Transfer::go`: asks the source to migrate.
    SendMigrate,
    /// `failover`: has the mons fence the host.
    Fence,
    /// Waits until all OSDs have the map.
    Barrier,
    /// Has the other hosts refuse migration from it.
    CloseIncoming,
    /// Looks whether the fence still stands, after the claim was read.
    LookFence,
    /// Takes the claim of a move over that has lost a side.
    TakeMove,
    /// Revokes older requests on the side that lives.
    RevokeLiving,
    /// Sees the copy there gone.
    AwaitEnded,
    /// Breaks the lock that the fenced copy held.
    BreakLock,
    /// `readmit`: reads the claim.
    ReadmitClaim,
    /// Raises the host's floor, and looks at it.
    ReadmitLook,
    /// Sees the old copy gone.
    AwaitCleared,
    /// Lifts the fence.
    Lift,
}

/// What has to be cleared up after a move, by `verdict::judge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leftover {
    /// The copy on the target that never ran ends.
    EndTarget,
    /// The copy on the source that has handed over ends.
    EndSource,
    /// The only copy there is goes on.
    ResumeSource,
}

/// A run of the tool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Run {
    /// What it does next.
    pub at: At,
    /// What it was asked for.
    pub command: Command,
    /// How many of its commands it has begun.
    pub begun: u8,
    /// The claim it acts on.
    pub claim: Claim,
    /// What the hosts told it.
    pub looks: [Look; HOSTS],
    /// The host it works on; the source of its move.
    pub host: Option<H>,
    /// The target of its move.
    pub target: Option<H>,
    /// The host that it has fenced, or lets in again.
    pub fenced: Option<H>,
    /// Which fence it saw there.
    pub fence: u8,
    /// Where the client runs that held the lock of the image; nowhere once that client is gone.
    pub locker: Option<H>,
    /// Where it found the guest after a move.
    pub found: Option<H>,
    /// What it saw to be cleared up.
    pub leftover: Option<Leftover>,
    /// Its pending claim is older than `TAKE_OVER`, so that others may take it over; it may act on it no more.
    pub too_old: bool,
    /// It has raised the floor of the source, so that its request is carried out no more.
    pub revoked: bool,
    /// Its start went nowhere: it settles its claim, and ends.
    pub gives_back: bool,
    /// Its process is gone.
    pub dead: bool,
}

/// Everything there is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The claim in RADOS.
    pub claim: Claim,
    /// The hosts.
    pub hosts: [Host; HOSTS],
    /// The runs.
    pub runs: [Run; RUNS],
    /// Requests on their way, in order of size, so that equal sets are equal states.
    pub requests: [Option<Request>; REQUESTS],
    /// How many faults may still happen.
    pub faults: u8,
    /// The guest's only copy, which its claim names, was ended as a left-over.
    pub cleared: bool,
    /// The lock of such a copy was broken, and its client blocklisted.
    pub shut_out: bool,
}

impl State {
    /// A host.
    pub fn host(&self, host: H) -> &Host {
        &self.hosts[host as usize]
    }

    /// A host, to change it.
    pub fn host_mut(&mut self, host: H) -> &mut Host {
        &mut self.hosts[host as usize]
    }

    /// A host's copy.
    pub fn copy(&self, host: H) -> &Copied {
        &self.hosts[host as usize].copy
    }

    /// A host's copy, to change it.
    pub fn copy_mut(&mut self, host: H) -> &mut Copied {
        &mut self.hosts[host as usize].copy
    }

    /// A run.
    pub fn run(&self, run: R) -> &Run {
        &self.runs[run as usize]
    }

    /// A run, to change it.
    pub fn run_mut(&mut self, run: R) -> &mut Run {
        &mut self.runs[run as usize]
    }

    /// Whether the tool reaches a host.
    pub fn answers(&self, host: H) -> bool {
        self.host(host).up && self.host(host).management
    }

    /// Whether a host reaches the storage.
    pub fn has_storage(&self, host: H) -> bool {
        self.host(host).up && self.host(host).storage
    }

    /// Whether what the copy on a host writes arrives.
    pub fn can_write(&self, host: H) -> bool {
        self.has_storage(host) && !self.copy(host).blocklisted && !self.refused(host)
    }

    /// Whether a new client on a host can open the image.
    pub fn can_open(&self, host: H) -> bool {
        self.has_storage(host) && !self.host(host).range && self.host(host).osds == 0
    }

    /// Whether all OSDs refuse a host's addresses.
    pub fn refused(&self, host: H) -> bool {
        self.host(host).osds == OSDS
    }

    /// Whether a host is fenced: it is written down, and the mons agree.
    pub fn fenced(&self, host: H) -> bool {
        self.host(host).proven && self.host(host).range
    }

    /// Whether a copy is the guest's only one that counts, and its claim says that it runs there.
    pub fn is_wanted(&self, host: H) -> bool {
        let only =
            H::ALL.iter().all(|other| *other == host || !self.copy(*other).does.exists() || self.refused(*other));
        let claimed = self.claim.phase == Phase::Running && self.claim.host == Some(host);
        only && claimed && self.copy(host).does == Does::Runs && !self.host(host).range
    }

    /// What a host tells a run that asks.
    pub fn look(&self, host: H) -> Look {
        let Copied { does, job, completed, .. } = *self.copy(host);
        if self.answers(host) { Look::Seen { does, job: job.is_some(), completed } } else { Look::Silent }
    }

    /// A new copy on a host: it is another client of the storage than any before it.
    pub fn new_copy(&mut self, host: H, does: Does) {
        *self.copy_mut(host) = Copied { does, watch: true, ..Copied::default() };
        for run in self.runs.iter_mut().filter(|run| run.locker == Some(host)) {
            run.locker = None;
        }
    }

    /// Ends the copy on a host, and the jobs that lead to it.
    pub fn end_copy(&mut self, host: H) {
        *self.copy_mut(host) = Copied::default();
        for other in &mut self.hosts {
            if other.copy.job == Some(host) {
                other.copy.job = None;
            }
        }
    }

    /// `claim::swap`: replaces the claim if it still is what was seen.
    pub fn swap(&mut self, seen: Claim, next: Claim) -> bool {
        let ours = self.claim == seen;
        if ours {
            self.claim = next;
        }
        ours
    }

    /// Puts a request on its way; `false` when there is no room for it.
    pub fn send(&mut self, request: Request) -> bool {
        let Some(last) = self.requests.iter_mut().find(|slot| slot.is_none()) else { return false };
        *last = Some(request);
        self.order();
        true
    }

    /// Takes a request off the way.
    pub fn receive(&mut self, slot: usize) {
        self.requests[slot] = None;
        self.order();
    }

    /// Drops the requests that wait on a host which loses power.
    pub fn drop_requests(&mut self, host: H) {
        for slot in &mut self.requests {
            if slot.is_some_and(|request| request.to == host && request.ask != Ask::Lift) {
                *slot = None;
            }
        }
        self.order();
    }

    fn order(&mut self) {
        self.requests.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// Whether a request that a run has sent is still on its way.
    pub fn under_way(&self, run: R, ask: Ask) -> bool {
        self.requests.iter().flatten().any(|request| request.from == run && request.ask == ask)
    }

    /// The run has nothing to do any more.
    pub fn rest(&mut self, run: R) {
        let Run { begun, too_old, dead, .. } = *self.run(run);
        *self.run_mut(run) = Run { begun, too_old, dead, ..Run::default() };
    }

    /// What must never be: two copies that run and write, one that runs with older memory than its disk, one that runs
    /// where the claim does not say so, and one that is lost by clearing up.
    pub fn violation(&self) -> Option<&'static str> {
        if self.cleared {
            return Some("the guest's only copy, which its claim names, is ended as a left-over");
        }
        if self.shut_out {
            return Some("the lock of the guest's only copy, which its claim names, is broken");
        }
        let mut writers = H::ALL.iter().filter(|h| self.copy(**h).does == Does::Runs && self.can_write(**h));
        let first = *writers.next()?;
        if writers.next().is_some() {
            return Some("two copies that run can write");
        }
        if self.copy(first).stale {
            return Some("a copy whose memory is older than its disk runs and can write");
        }
        (!self.claim.names(first)).then_some("a copy runs on a host that the claim does not name")
    }
}
