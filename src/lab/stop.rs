//! Breaking off work on a lab: at an interruption, and when its time is over.

use crate::error::{Failure, Kind};
use crate::ui::{CancelLevel, CompletionGuard, ShutdownPolicy, Ui};
use std::time::Duration;
use tokio::time::Instant;

/// When work is broken off.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    ui: Ui,
    until: Option<(Instant, Duration)>,
}

impl Stop {
    /// At an interruption, and after `deadline` from now.
    pub(super) fn new(deadline: Option<Duration>, ui: &Ui) -> Self {
        Stop { ui: ui.clone(), until: deadline.map(|limit| (Instant::now() + limit, limit)) }
    }

    /// While the answer lives, interruptions break off bound work alone; what has to be done after it is `cleanup`.
    pub(super) fn guard(&self, cleanup: &'static str) -> CompletionGuard {
        self.ui.completion_guard(ShutdownPolicy { once: cleanup, twice: cleanup, aborts_itself: true })
    }

    /// Does the work unless it is broken off; then it is dropped where it stands.
    pub(super) async fn bound<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut cancel_level = self.ui.cancel_level();
        let over = async {
            match self.until {
                Some((at, limit)) => {
                    tokio::time::sleep_until(at).await;
                    limit
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = work => done,
            _ = cancel_level.wait_for(|cancel_level| *cancel_level != CancelLevel::None) => {
                Err(Failure::msg(Kind::Interrupted, "interrupted"))
            }
            limit = over => Err(Failure::failed(format!("not done within {}", humantime::format_duration(limit)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test(start_paused = true)]
    async fn work_ends_by_itself_or_when_its_time_is_over() {
        let stop = Stop::new(Some(Duration::from_secs(90)), &Ui::hidden());
        assert_eq!(stop.bound(async { Ok(1) }).await.unwrap(), 1);
        let failure = stop.bound(pending::<Result<(), Failure>>()).await.unwrap_err();
        assert_eq!((failure.kind, failure.to_string().as_str()), (Kind::Failed, "not done within 1m 30s"));
        // One time for all parts of the work.
        let began = Instant::now();
        assert!(stop.bound(pending::<Result<(), Failure>>()).await.is_err());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
