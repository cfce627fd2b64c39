//! What the hosts of a claim say together, and what that means for it: pure.

use crate::libvirt::{Domain, DomainState};

/// What one side says about the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// It does not answer; the reason.
    Silent(String),
    /// It has it, but its QEMU does not answer; the reason.
    Mute(String),
    /// It has no such guest.
    Absent,
    /// It has it.
    Present {
        /// What the guest is doing there.
        state: DomainState,
        /// Why, in libvirt's words.
        reason: String,
        /// Whether a job runs on it there.
        job: bool,
    },
}

impl Side {
    /// From what a host that answers says.
    pub fn of(domain: Option<Domain>, job: bool) -> Self {
        match domain {
            Some(domain) if domain.state.has_process() => {
                Side::Present { state: domain.state, reason: domain.reason, job }
            }
            _ => Side::Absent,
        }
    }

    fn runs(&self) -> bool {
        matches!(self, Side::Present { state: DomainState::Running, .. })
    }

    /// Whether it stands still for a reason that has nothing to do with moving.
    fn stands_by_itself(&self) -> bool {
        let own = ["user", "ioerror", "watchdog", "crashed"];
        matches!(self, Side::Present { state: DomainState::Paused, reason, .. } if own.contains(&reason.as_str()))
            || matches!(
                self,
                Side::Present { state: DomainState::Stopping | DomainState::Crashed | DomainState::Suspended, .. }
            )
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Side::Silent(why) => write!(f, "does not answer ({why})"),
            Side::Mute(why) => write!(f, "has it, but its QEMU does not answer ({why})"),
            Side::Absent => f.write_str("does not have it"),
            Side::Present { state, reason, job } => {
                write!(f, "has it {state} ({reason}{})", if *job { ", a job runs" } else { "" })
            }
        }
    }
}

/// Where the guest is, or what has to be done to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is on the target, and nowhere else.
    Moved,
    /// It is on the source, and nowhere else.
    Stayed,
    /// It is on neither: it ended meanwhile.
    Gone,
    /// The move is still going on.
    InTransit,
    /// libvirt is about to clear up; if it does not, the copy on the target that never ran can be ended.
    EndTargetCopy,
    /// libvirt is about to clear up; if it does not, the copy on the source that has handed over can be ended.
    EndSourceCopy,
    /// libvirt is about to clear up; if it does not, the only copy there is can go on.
    ResumeSource,
    /// It runs on both sides: the copy on the source was revived after it had handed over.
    Twice,
    /// It cannot be told.
    Unknown,
}

/// Judges by what both sides say at about one time.
///
/// The rule behind every line: a copy is ended only when the other one is *seen* running and this one is *seen*
/// standing still because of the move; with one side silent nothing is done at all.
pub fn judge(source: &Side, target: &Side) -> Verdict {
    let says_nothing = |side: &Side| matches!(side, Side::Silent(_) | Side::Mute(_));
    if says_nothing(source) || says_nothing(target) {
        return Verdict::Unknown;
    }
    if matches!(source, Side::Present { job: true, .. }) {
        return Verdict::InTransit;
    }
    match (source, target) {
        (Side::Absent, Side::Absent) => Verdict::Gone,
        (Side::Absent, there) if there.runs() || there.stands_by_itself() => Verdict::Moved,
        // Without its source an incoming copy may be incomplete: nobody may let it go on.
        (Side::Absent, _) => Verdict::Unknown,
        (here, Side::Absent) if here.runs() || here.stands_by_itself() => Verdict::Stayed,
        (_, Side::Absent) => Verdict::ResumeSource,
        (here, there) => match (here.runs(), there.runs()) {
            (true, true) => Verdict::Twice,
            (true, false) if there.stands_by_itself() => Verdict::Unknown,
            (true, false) => Verdict::EndTargetCopy,
            (false, true) if here.stands_by_itself() => Verdict::Unknown,
            (false, true) => Verdict::EndSourceCopy,
            // Between the last page and the switch.
            (false, false) => Verdict::InTransit,
        },
    }
}

/// What to do with the copy of a guest whose move had its other side on a host that is fenced now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lone {
    /// There is none: the guest can be started anew.
    Gone,
    /// It is the guest.
    Stays,
    /// It is older than the disk, or incomplete: it ends, and the guest is started anew.
    Ends,
}

/// Judges by the one side that is not fenced. `source`: it is where the guest came from; `handed_over`: it has sent all
/// there was, so that the other side may have run and written since.
///
/// What has handed over ends, it never goes on; what arrives ends unless it runs.
pub fn judge_beside_a_fence(domain: Option<&Domain>, source: bool, handed_over: bool) -> Lone {
    let side = Side::of(domain.cloned(), false);
    match side {
        Side::Absent => Lone::Gone,
        _ if source && handed_over => Lone::Ends,
        _ if side.runs() || (source && side.stands_by_itself()) => Lone::Stays,
        _ => Lone::Ends,
    }
}

/// What a start left behind on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartVerdict {
    /// Nothing: the claim can be freed.
    Nothing,
    /// The guest runs: the start was never written down.
    Runs,
    /// It was made, and stands still until it is let go on.
    Made,
}

/// Judges a start by what its host has after older requests were revoked there.
pub fn judge_start(domain: Option<&Domain>) -> StartVerdict {
    match domain.map(|domain| domain.state) {
        None | Some(DomainState::Off) => StartVerdict::Nothing,
        Some(DomainState::Paused) => StartVerdict::Made,
        // Whatever it does by now, it ran.
        Some(_) => StartVerdict::Runs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(state: DomainState, reason: &str) -> Side {
        Side::Present { state, reason: reason.into(), job: false }
    }

    #[test]
    fn every_pair_of_sides_has_its_verdict() {
        let silent = || Side::Silent("cut off".into());
        let runs = || at(DomainState::Running, "migrated");
        let moving = || at(DomainState::Paused, "migration");
        let broken = || at(DomainState::Paused, "ioerror");
        let busy = Side::Present { state: DomainState::Running, reason: "booted".into(), job: true };
        let table = [
            (runs(), Side::Absent, Verdict::Stayed),
            (Side::Absent, runs(), Verdict::Moved),
            (Side::Absent, broken(), Verdict::Moved),
            (broken(), Side::Absent, Verdict::Stayed),
            (Side::Absent, Side::Absent, Verdict::Gone),
            (busy.clone(), moving(), Verdict::InTransit),
            (busy, silent(), Verdict::Unknown),
            (moving(), moving(), Verdict::InTransit),
            (runs(), moving(), Verdict::EndTargetCopy),
            (moving(), runs(), Verdict::EndSourceCopy),
            (moving(), Side::Absent, Verdict::ResumeSource),
            (Side::Absent, moving(), Verdict::Unknown),
            (runs(), runs(), Verdict::Twice),
            (runs(), broken(), Verdict::Unknown),
            (runs(), silent(), Verdict::Unknown),
            (silent(), runs(), Verdict::Unknown),
            (silent(), silent(), Verdict::Unknown),
            (Side::Mute("no answer".into()), Side::Absent, Verdict::Unknown),
        ];
        for (source, target, verdict) in table {
            assert_eq!(judge(&source, &target), verdict, "source {source}; target {target}");
        }
    }

    #[test]
    fn what_a_start_left_behind_is_told_by_its_state() {
        let domain = |state| Domain {
            name: "web".into(),
            uuid: uuid::Uuid::nil(),
            state,
            reason: String::new(),
            memory: 0,
            cpus: 1,
        };
        let table = [
            (DomainState::Off, StartVerdict::Nothing),
            (DomainState::Paused, StartVerdict::Made),
            (DomainState::Running, StartVerdict::Runs),
            (DomainState::Stopping, StartVerdict::Runs),
            (DomainState::Crashed, StartVerdict::Runs),
            (DomainState::Suspended, StartVerdict::Runs),
            (DomainState::Unknown, StartVerdict::Runs),
        ];
        for (state, verdict) in table {
            assert_eq!(judge_start(Some(&domain(state))), verdict, "{state}");
        }
        assert_eq!(judge_start(None), StartVerdict::Nothing);
    }
}
