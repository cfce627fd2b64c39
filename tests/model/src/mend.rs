//! Which commands bring a guest back to life from a settled situation, with all hosts there and no run at it.

use crate::moves::Setup;
use crate::search::reaches;
use crate::state::{At, Command, Does, Phase, R, RUNS, Run, State};

/// Commands to try, the gentlest first.
const MENDS: [&[Command]; 8] = [
    &[Command::Start],
    &[Command::Finish],
    &[Command::Finish, Command::Start],
    &[Command::Failover],
    &[Command::Stop, Command::Start],
    &[Command::Failover, Command::Start],
    &[Command::Readmit, Command::Start],
    &[Command::Readmit, Command::Failover],
];

/// States that are looked at for one situation; a single run without faults reaches a few hundred.
const LIMIT: usize = 100_000;

/// What mends a settled situation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mend {
    /// The guest runs, and its claim says so.
    Runs,
    /// These commands, one after the other.
    By(&'static [Command]),
    /// None of those there are.
    Stuck,
}

/// The first of the commands with which one run alone brings the guest back.
pub fn mend(setup: &Setup, situation: &State) -> Mend {
    let mut state = *situation;
    state.faults = 0;
    state.runs = [Run::default(); RUNS];
    // Whoever wrote the claim is gone for long.
    state.claim.run = state.claim.run.map(|_| R::Earlier);
    if lives(&state) {
        return Mend::Runs;
    }
    let mends = |commands: &&&'static [Command]| {
        let alone = Setup { commands: [**commands, &[], &[]], budget: 0, ..*setup };
        reaches(&alone, state, LIMIT, lives)
    };
    MENDS.iter().find(mends).map_or(Mend::Stuck, |commands| Mend::By(commands))
}

/// Whether the guest runs in one place (what is left on a fenced host does not count), with its memory current, and its claim says so.
fn lives(state: &State) -> bool {
    let (claim, mut copies) = (state.claim, state.hosts.iter().filter(|host| host.copy.does.exists() && !host.range));
    let (Some(host), Some(copy), None) = (claim.host, copies.next(), copies.next()) else { return false };
    let idle = state.runs.iter().all(|run| run.at == At::Idle);
    let here = copy.copy == *state.copy(host) && state.can_write(host);
    idle && claim.phase == Phase::Running && here && copy.copy.does == Does::Runs && !copy.copy.stale
}
