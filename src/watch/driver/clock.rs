//! The watcher's time: since it began, by a clock that goes on while the machine sleeps and that nobody can set.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tokio::time::Instant;

/// The watcher's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    boot: Duration,
    began: Instant,
}

impl Clock {
    /// Begins at zero.
    pub fn begin() -> Self {
        Clock { boot: boot_time(), began: Instant::now() }
    }

    /// The time since the watcher began, with the time asleep.
    pub fn now(&self) -> Duration {
        boot_time().saturating_sub(self.boot).max(self.began.elapsed())
    }

    /// When an instant of this process comes, as far as the machine does not sleep until then.
    pub fn at(&self, instant: Instant) -> Duration {
        self.now() + instant.saturating_duration_since(Instant::now())
    }
}

fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}
