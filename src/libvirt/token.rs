//! What a changing request carries, so that its host can tell whether it comes too late.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tokio::time::Instant;

/// How long after its claim was written a start or a move may still be asked for.
const WINDOW: Duration = Duration::from_secs(15);

/// The time in which the writer of a claim may act on it, by a clock that goes on while the machine sleeps: a laptop
/// that slept must not act on what it knew before.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    boot: Duration,
    began: Instant,
}

impl Window {
    /// Begins; to be called before the claim is written.
    pub fn begin() -> Self {
        Window { boot: boot_time(), began: Instant::now() }
    }

    /// Whether it is too late, by either clock.
    pub fn is_over(&self) -> bool {
        boot_time().saturating_sub(self.boot) > WINDOW || self.began.elapsed() > WINDOW
    }
}

/// Time since boot, with the time asleep.
fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or(Duration::MAX)
}

/// The fencing token of a request: the generation of the claim it stands on. A host carries a request out only when it
/// has seen no higher generation for this guest, and remembers the highest one as its floor.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    /// The claim's generation.
    pub generation: u64,
    /// When the request may still be sent; always, where there is none.
    pub window: Option<Window>,
}

impl Token {
    /// The token of a claim of this generation.
    pub fn new(generation: u64) -> Self {
        Token { generation, window: None }
    }

    /// For a request that is sent within a window or never.
    #[must_use]
    pub fn within(self, window: Window) -> Self {
        Token { window: Some(window), ..self }
    }

    /// Whether the request must not be sent any more.
    pub fn is_late(&self) -> bool {
        self.window.is_some_and(|window| window.is_over())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_window_closes_by_either_clock() {
        let window = Window::begin();
        assert!(!Token::new(1).within(window).is_late());
        assert!(Window { boot: boot_time().saturating_sub(WINDOW + Duration::from_secs(1)), ..window }.is_over());
        tokio::time::advance(WINDOW + Duration::from_secs(1)).await;
        assert!(Token::new(1).within(window).is_late());
        assert!(!Token::new(1).is_late(), "one without a window may always be sent");
    }
}
