//! What the brain remembers of one host beside the reports.

use super::phase::Phase;
use super::settings::Settings;
use super::verdict::{State, Verdict};
use std::time::Duration;

/// How many times a host may fall silent in [`FLAPPING_WITHIN`] before people are told.
pub(super) const FLAPPING: usize = 3;
/// See [`FLAPPING`].
pub(super) const FLAPPING_WITHIN: Duration = Duration::from_secs(600);

/// What the brain remembers of one host.
#[derive(Clone, Debug, Default)]
pub(super) struct Incident {
    pub(super) phase: Phase,
    /// When it fell silent, if it did and nobody has readmitted it.
    pub(super) silent_since: Option<Duration>,
    /// The verdict that people know of, and since when it stands.
    pub(super) state: Option<(State, Duration)>,
    /// The verdict that a fence stands on.
    pub(super) verdict: Option<Verdict>,
    /// Whether what the phase stands for was asked for, and is not answered yet.
    pub(super) pending: bool,
    /// When to ask for it next.
    pub(super) next_try: Duration,
    pub(super) tries: u32,
    /// When the witnesses were asked last.
    pub(super) asked: Option<Duration>,
    /// When it was thought about last.
    pub(super) weighed: Option<Duration>,
    pub(super) nudged: bool,
    pub(super) maintenance: bool,
    pub(super) released: bool,
    /// Whether its guests were moved away, or are being moved, since it was slow.
    pub(super) drained: bool,
    /// How often that failed, and when it may be asked for again.
    pub(super) undrained: u32,
    pub(super) drain_at: Duration,
    /// Whether its libvirt was started anew since it was well.
    pub(super) mended: bool,
    pub(super) returned: bool,
    /// What people were told about why nothing is done.
    pub(super) held: Option<String>,
    /// Whether a fence was asked for, and it is not certain that nothing came of it.
    pub(super) begun: bool,
    /// When to look whether its guests run, if that has to be done.
    pub(super) restart_at: Option<Duration>,
    /// Whether that was asked for, and is not answered yet.
    pub(super) restarting: bool,
    pub(super) boot_id: Option<String>,
    /// When it fell silent and came back.
    pub(super) blinks: Vec<Duration>,
}

impl Incident {
    /// The host is heard again, and nothing was done to it. Gives whether it does that too often.
    pub(super) fn clear(&mut self, now: Duration) -> bool {
        self.blinks.retain(|at| now.saturating_sub(*at) < FLAPPING_WITHIN);
        self.blinks.push(now);
        let too_often = self.blinks.len() == FLAPPING;
        *self = Incident {
            maintenance: self.maintenance,
            drained: self.drained,
            mended: self.mended,
            restart_at: self.restart_at,
            restarting: self.restarting,
            boot_id: self.boot_id.take(),
            blinks: std::mem::take(&mut self.blinks),
            ..Incident::default()
        };
        too_often
    }

    /// Goes on to a phase, whose work is to be asked for at once.
    pub(super) fn go(&mut self, phase: Phase, now: Duration) {
        self.phase = phase;
        self.pending = false;
        self.tries = 0;
        self.next_try = now;
    }

    /// What was asked for did not come about: it is asked for again, later each time.
    pub(super) fn retry(&mut self, now: Duration, settings: &Settings) {
        self.pending = false;
        self.next_try = now + settings.retry * (1 << self.tries.min(4));
        self.tries += 1;
    }

    /// Whether its work has to be asked for now.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        !self.pending && now >= self.next_try
    }

    /// Since when the verdict has been the one it is.
    pub(super) fn state_for(&self, now: Duration) -> Duration {
        self.state.map_or(Duration::ZERO, |(_, since)| now.saturating_sub(since))
    }
}
