//! How the steps of the model are written down: a state leads to others, each by a step that has words.

use crate::rules::{Faults, Rules};
use crate::state::{Claim, Command, H, HOSTS, Host, Phase, R, RUNS, Run, State};
use crate::{failover, faults, launch, libvirt, readmit, settlement, start, stop, transfer};

/// One run of the search: what there is to begin with, what is asked for, and what may go wrong.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Hosts there are.
    pub hosts: usize,
    /// Whether the guest runs on the first host to begin with.
    pub running: bool,
    /// What each run does, one command after the other.
    pub commands: [&'static [Command]; RUNS],
    /// How many faults may happen.
    pub budget: u8,
    /// Which.
    pub faults: Faults,
    /// The rules that hold.
    pub rules: Rules,
}

impl Setup {
    /// The hosts there are.
    pub fn hosts(&self) -> impl Iterator<Item = H> + Clone + use<> {
        H::ALL.into_iter().take(self.hosts)
    }

    /// Whether any run fences a host.
    pub fn fences(&self) -> bool {
        self.commands.iter().copied().flatten().any(|command| matches!(command, Command::Failover | Command::Readmit))
    }

    /// The state it begins with.
    pub fn first(&self) -> State {
        let host = Host {
            up: true,
            management: true,
            storage: true,
            floor: 0,
            range: false,
            osds: 0,
            fences: 0,
            proven: false,
            closed: [false; HOSTS],
            copy: Default::default(),
        };
        let mut state = State {
            claim: Claim::default(),
            hosts: [host; HOSTS],
            runs: [Run::default(); RUNS],
            requests: Default::default(),
            faults: self.budget,
            cleared: false,
            shut_out: false,
        };
        if self.running {
            let run = Some(R::Earlier);
            state.claim = Claim { generation: 1, phase: Phase::Running, host: Some(H::H1), target: None, run };
            state.host_mut(H::H1).floor = 1;
            let copy = state.copy_mut(H::H1);
            (copy.does, copy.watch, copy.lock) = (crate::state::Does::Runs, true, true);
        }
        state
    }

    /// Every state that a state leads to, with the step that leads there.
    pub fn successors(&self, state: &State, found: &mut Vec<(State, Step)>) {
        libvirt::steps(&mut World { setup: self, before: state, found });
        faults::steps(&mut World { setup: self, before: state, found });
        for me in R::ALL {
            steps_of_run(&mut Turn { setup: self, before: state, me, said: None, found });
        }
    }
}

/// The steps of a run: time passes for it, and it does what it does next.
fn steps_of_run(turn: &mut Turn) {
    let (run, claim, me) = (*turn.run(), turn.before.claim, turn.me);
    if !run.too_old && claim.run == Some(me) && claim.pending() {
        turn.go("TAKE_OVER passes (it sleeps, is slow, or is dead)", None, |state| state.run_mut(me).too_old = true);
    }
    if !run.dead {
        faults::crash(turn);
        let all = [start::steps, launch::steps, stop::steps, settlement::steps, transfer::steps];
        for steps in all.into_iter().chain([failover::steps, readmit::steps]) {
            steps(turn);
        }
    }
}

/// What happened, for people.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    by: Option<R>,
    texts: [Option<(&'static str, Option<H>)>; 2],
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.by {
            Some(run) => write!(f, "run {run:?}: ")?,
            None => f.write_str("       ")?,
        }
        for (n, (text, host)) in self.texts.iter().flatten().enumerate() {
            let host = host.map_or_else(|| "no host".to_owned(), |host| format!("{host:?}").to_lowercase());
            write!(f, "{}{}", if n > 0 { "; " } else { "" }, text.replace("{}", &host))?;
        }
        Ok(())
    }
}

/// What happens without the tool: requests arrive, memory is sent, networks break.
pub struct World<'a> {
    /// What may happen.
    pub setup: &'a Setup,
    /// What there is.
    pub before: &'a State,
    found: &'a mut Vec<(State, Step)>,
}

impl World<'_> {
    /// Something happens; `{}` in the text is the host.
    pub fn go(&mut self, text: &'static str, host: H, change: impl FnOnce(&mut State)) {
        let mut next = *self.before;
        change(&mut next);
        self.found.push((next, Step { by: None, texts: [Some((text, Some(host))), None] }));
    }

    /// A fault happens, as long as there are any left.
    pub fn fault(&mut self, may: bool, text: &'static str, host: H, change: impl FnOnce(&mut State)) {
        if may && self.before.faults > 0 {
            self.go(text, host, |next| {
                next.faults -= 1;
                change(next);
            });
        }
    }
}

/// A run's turn to act.
pub struct Turn<'a> {
    /// The rules it follows.
    pub setup: &'a Setup,
    /// What there is.
    pub before: &'a State,
    /// Which run.
    pub me: R,
    said: Option<(&'static str, Option<H>)>,
    found: &'a mut Vec<(State, Step)>,
}

impl Turn<'_> {
    /// The run, as it is.
    pub fn run(&self) -> &Run {
        self.before.run(self.me)
    }

    /// The rules it follows.
    pub fn rules(&self) -> &Rules {
        &self.setup.rules
    }

    /// The run does something; `{}` in the text is the host.
    pub fn go(&mut self, text: &'static str, host: impl Into<Option<H>>, change: impl FnOnce(&mut State)) {
        let mut next = *self.before;
        change(&mut next);
        let texts = match self.said {
            Some(before) => [Some(before), Some((text, host.into()))],
            None => [Some((text, host.into())), None],
        };
        self.found.push((next, Step { by: Some(self.me), texts }));
    }

    /// The run does something, and at once what follows from it without another look at anything: to be slow in between
    /// is the same as to be slow before the next request, and a request may be late as it is.
    pub fn go_and(
        &mut self,
        text: &'static str,
        host: impl Into<Option<H>>,
        change: impl FnOnce(&mut State),
        follows: impl FnOnce(&mut Turn),
    ) {
        let mut next = *self.before;
        change(&mut next);
        let said = Some((text, host.into()));
        follows(&mut Turn { setup: self.setup, before: &next, me: self.me, said, found: self.found });
    }

    /// The run comes to its end.
    pub fn rest(&mut self, text: &'static str, host: impl Into<Option<H>>) {
        let me = self.me;
        self.go(text, host, |next| next.rest(me));
    }

    /// Whether a claim's writer can act on it no more, so that it may be taken over (`claim::wait_out`).
    pub fn outlasted(&self, claim: Claim) -> bool {
        match claim.run {
            None | Some(R::Earlier) => true,
            Some(run) => self.before.run(run).too_old,
        }
    }

    /// `Claim::running`.
    pub fn running(&self, claim: Claim, host: H) -> Claim {
        let raise = claim.host != Some(host) || self.rules().every_write_raises;
        let generation = claim.generation + u8::from(raise);
        Claim { generation, phase: Phase::Running, host: Some(host), target: None, run: claim.run }
    }
}
