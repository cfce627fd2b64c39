//! Whether a move still gets on: pure, time is handed in.

use crate::libvirt::JobStats;
use std::time::Duration;

/// How long a move may show no progress before it is aborted.
pub const STALL: Duration = Duration::from_secs(30);
/// Rounds over the memory after which a longer pause is allowed, and again after as many.
const ROUNDS: u64 = 3;
/// The limit of the pause a move begins with. QEMU stops the guest as soon as what is left can be sent within the limit,
/// so it uses all of it: with its own first limit (`downtime-limit`, 300 ms) a small guest stands still for 300 ms in
/// its first round although it writes next to nothing. A short one costs a quiet guest one more round.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// Watches the figures of one move.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    last: Option<(u64, u64, u64)>,
    moved_at: Duration,
}

impl Progress {
    /// Takes in figures seen at `now` (since the move began; none when they could not be had). Tells whether the
    /// move stands still for too long.
    pub fn stalled(&mut self, stats: Option<&JobStats>, now: Duration) -> bool {
        if let Some(stats) = stats {
            let figures = (stats.memory_processed, stats.memory_remaining, stats.iteration);
            if self.last != Some(figures) {
                (self.last, self.moved_at) = (Some(figures), now);
            }
        }
        now.saturating_sub(self.moved_at) >= STALL
    }
}

/// The pause that may be caused in this round over the memory: doubled every few rounds up to the ceiling.
pub fn pause(ceiling: Duration, iteration: u64) -> Duration {
    let doublings = u32::try_from(iteration / ROUNDS).unwrap_or(u32::MAX).min(16);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(ceiling)
}

/// What may be left when an emulated guest is stopped at a low rate: a rate that somebody limits comes in bursts of a
/// tenth of a second.
const BURST: u64 = 2 << 20;

/// Whether an emulated guest has to be stopped now, because the first round over its memory is about to end.
///
/// QEMU before 9.0 loses writes of an emulated processor that follow a look at the dirty pages (its commit 03bfc2188f,
/// "Fix migration dirty bitmap coherency with TCG memory access"): a guest that runs through a second round arrives
/// with stale memory. KVM keeps its own record and is not affected.
pub fn stop_emulated(stats: &JobStats) -> bool {
    let little = (stats.rate / 32).max(BURST.min(stats.rate / 8));
    stats.iteration > 1 || stats.memory_processed > 0 && stats.memory_remaining <= little
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(processed: u64) -> JobStats {
        JobStats { memory_processed: processed, ..JobStats::default() }
    }

    #[test]
    fn standing_still_for_too_long_is_a_stall() {
        let s = Duration::from_secs;
        let mut progress = Progress::default();
        assert!(!progress.stalled(None, s(29)), "it has not begun yet");
        assert!(!progress.stalled(Some(&at(10)), s(29)));
        assert!(!progress.stalled(Some(&at(10)), s(58)));
        assert!(!progress.stalled(Some(&at(11)), s(59)));
        assert!(progress.stalled(Some(&at(11)), s(89)));
        assert!(Progress::default().stalled(None, s(30)), "nothing was ever heard of it");
    }

    #[test]
    fn an_emulated_guest_is_stopped_when_little_is_left() {
        let stops = |rate, memory_processed, memory_remaining, iteration| {
            stop_emulated(&JobStats { memory_processed, memory_remaining, rate, iteration, ..JobStats::default() })
        };
        assert!(!stops(320_000_000, 0, 0, 1), "nothing was sent yet");
        assert!(!stops(320_000_000, 1, 10_000_001, 1));
        assert!(stops(320_000_000, 1, 10_000_000, 1));
        assert!(stops(4_000_000, 1, 500_000, 1), "it may be gone with the next burst");
        assert!(!stops(4_000_000, 1, 500_001, 1));
        assert!(stops(4_000_000, 1, 50_000_000, 2), "better late");
    }

    #[test]
    fn the_pause_grows_up_to_its_ceiling() {
        let ms = Duration::from_millis;
        let pauses: Vec<Duration> = [0, 2, 3, 6, 18, 21, 90].map(|n| pause(ms(1000), n)).into();
        assert_eq!(pauses, [ms(10), ms(10), ms(20), ms(40), ms(640), ms(1000), ms(1000)]);
        assert_eq!(pause(ms(5), 0), ms(5));
    }
}
