//! 64 bits of a state, by which the search knows it again.
//!
//! A state has fewer than 400 bits; they are packed without loss, and then mixed. Two of ten million states share a
//! fingerprint with a chance of one in 400,000.

use crate::state::{Ask, Claim, H, Host, Look, Request, Run, State};

/// The fingerprint of a state.
pub fn fingerprint(state: &State) -> u64 {
    let mut bits = Bits::default();
    bits.claim(&state.claim);
    state.hosts.iter().for_each(|host| bits.host(host));
    state.runs.iter().for_each(|run| bits.run(run));
    state.requests.iter().for_each(|request| bits.request(request.as_ref()));
    bits.put(u64::from(state.faults), 3);
    bits.flag(state.cleared);
    bits.flag(state.shut_out);
    bits.finish()
}

/// The fingerprint of what tells one settled situation from another: runs and generations alone do not.
pub fn situation(state: &State) -> u64 {
    let mut bits = Bits::default();
    bits.claim(&Claim { generation: 0, run: None, ..state.claim });
    for host in &state.hosts {
        bits.host(&Host { floor: u8::from(host.floor > state.claim.generation), fences: 0, ..*host });
    }
    bits.finish()
}

/// Words of 64 bits, mixed one after the other.
#[derive(Default)]
struct Bits {
    word: u64,
    used: u32,
    mixed: u64,
}

impl Bits {
    fn put(&mut self, value: u64, bits: u32) {
        debug_assert!(value < 1 << bits, "{value} does not fit into {bits} bits");
        if self.used + bits > 64 {
            self.mix();
        }
        self.word |= value << self.used;
        self.used += bits;
    }

    fn flag(&mut self, value: bool) {
        self.put(u64::from(value), 1);
    }

    fn place(&mut self, host: Option<H>) {
        self.put(host.map_or(0, |host| host as u64 + 1), 2);
    }

    fn claim(&mut self, claim: &Claim) {
        self.put(u64::from(claim.generation), 6);
        self.put(claim.phase as u64, 2);
        self.place(claim.host);
        self.place(claim.target);
        self.put(claim.run.map_or(0, |run| run as u64 + 1), 3);
    }

    fn host(&mut self, host: &Host) {
        let copy = &host.copy;
        let flags = [host.up, host.management, host.storage];
        flags.into_iter().for_each(|flag| self.flag(flag));
        self.put(u64::from(host.floor), 6);
        self.put(copy.does as u64, 3);
        self.place(copy.job);
        let flags =
            [copy.completed, copy.stale, copy.lock, copy.watch, copy.blocklisted, copy.listed, host.range, host.proven];
        flags.into_iter().for_each(|flag| self.flag(flag));
        self.put(u64::from(host.osds), 2);
        self.put(u64::from(host.fences), 2);
        host.closed.into_iter().for_each(|flag| self.flag(flag));
    }

    fn run(&mut self, run: &Run) {
        self.put(run.at as u64, 6);
        self.put(run.command as u64, 3);
        self.put(u64::from(run.begun), 3);
        self.claim(&run.claim);
        run.looks.iter().for_each(|look| self.look(*look));
        [run.host, run.target, run.found, run.fenced, run.locker].into_iter().for_each(|place| self.place(place));
        self.put(run.leftover.map_or(0, |leftover| leftover as u64 + 1), 2);
        self.put(u64::from(run.fence), 2);
        let flags = [run.too_old, run.revoked, run.gives_back, run.dead];
        flags.into_iter().for_each(|flag| self.flag(flag));
    }

    fn look(&mut self, look: Look) {
        let value = match look {
            Look::Unasked => 0,
            Look::Silent => 1,
            Look::Seen { does, job, completed } => 2 + (does as u64 | u64::from(job) << 3 | u64::from(completed) << 4),
        };
        self.put(value, 6);
    }

    fn request(&mut self, request: Option<&Request>) {
        let value = request.map_or(0, |request| {
            let (ask, target) = match request.ask {
                Ask::Create => (1, 0),
                Ask::Resume => (2, 0),
                Ask::Migrate(target) => (3, target as u64),
                Ask::Destroy => (4, 0),
                Ask::Suspend => (5, 0),
                Ask::Clear => (6, 0),
                Ask::Lift => (7, 0),
            };
            ask | target << 3
                | (request.to as u64) << 5
                | (request.from as u64) << 7
                | u64::from(request.generation) << 9
        });
        self.put(value, 15);
    }

    fn mix(&mut self) {
        let mut n = (self.mixed ^ self.word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        n = (n ^ (n >> 32)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        (self.mixed, self.word, self.used) = (n ^ (n >> 29), 0, 0);
    }

    fn finish(mut self) -> u64 {
        self.mix();
        self.mix();
        self.mixed
    }
}
