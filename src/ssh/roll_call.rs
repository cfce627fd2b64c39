//! How long hosts are waited for that say nothing while the others answer.

use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A host that has not answered by then is left out, while others have.
const SILENT: Duration = Duration::from_secs(2);
/// As long as answers come no further apart than this, the rest is waited for: a large or busy rack answers late, a dead
/// host not at all.
const TRICKLE: Duration = Duration::from_secs(1);
/// The longest wait, and the wait when no host answers at all.
const LONGEST: Duration = Duration::from_secs(8);

/// Hosts that are asked at one time. A dead one is told from a busy rack by the others' answers.
#[derive(Debug)]
pub struct RollCall {
    began: Instant,
    last: watch::Sender<Option<Instant>>,
}

impl Default for RollCall {
    fn default() -> Self {
        RollCall { began: Instant::now(), last: watch::Sender::new(None) }
    }
}

impl RollCall {
    /// The host's answer, or none when it is a straggler. An error is an answer that says nothing of the other hosts.
    pub async fn answer<T, E>(&self, ask: impl Future<Output = Result<T, E>>) -> Option<Result<T, E>> {
        tokio::select! {
            biased;
            answer = ask => {
                if answer.is_ok() {
                    self.last.send_replace(Some(Instant::now()));
                }
                Some(answer)
            }
            () = self.closed() => None,
        }
    }

    /// What is said of a straggler.
    pub fn late(&self) -> String {
        format!("no answer within {} s", self.began.elapsed().as_secs().max(1))
    }

    /// Waits until the rest is given up.
    async fn closed(&self) {
        let mut last = self.last.subscribe();
        loop {
            let close = close(self.began, *last.borrow_and_update());
            tokio::select! {
                () = sleep_until(close) => return,
                // The sender lives as long as `self`.
                _ = last.changed() => {}
            }
        }
    }
}

fn close(began: Instant, last: Option<Instant>) -> Instant {
    let longest = began + LONGEST;
    last.map_or(longest, |last| (last + TRICKLE).max(began + SILENT).min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;
    use tokio::time::sleep;

    /// Which of these hosts answer, by the milliseconds they take (none: never), and how long it takes in all.
    async fn called(hosts: &[Option<u64>]) -> (Vec<bool>, u128) {
        let roll = RollCall::default();
        let ask = |ms: Option<u64>| async move {
            match ms {
                Some(ms) => sleep(Duration::from_millis(ms)).await,
                None => std::future::pending().await,
            }
            Ok::<_, ()>(())
        };
        let answers = join_all(hosts.iter().map(|ms| roll.answer(ask(*ms)))).await;
        (answers.iter().map(Option::is_some).collect(), roll.began.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_host_is_given_up_after_two_seconds_and_a_busy_rack_is_not() {
        assert_eq!(called(&[Some(300), Some(400), None]).await, (vec![true, true, false], 2000));
        assert_eq!(called(&[Some(300), Some(1900), None]).await, (vec![true, true, false], 2900));
        assert_eq!(called(&[Some(1900), Some(2800), Some(3700)]).await, (vec![true; 3], 3700), "they trickle in");
        assert_eq!(called(&[Some(7000), Some(7500)]).await, (vec![true; 2], 7500), "all are slow");
        assert_eq!(called(&[None, None]).await, (vec![false; 2], 8000));
        assert_eq!(called(&[Some(100), Some(200)]).await, (vec![true; 2], 200));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_says_nothing_of_the_others() {
        let roll = RollCall::default();
        let refused = async { Err::<(), _>("refused") };
        let slow = async {
            sleep(Duration::from_secs(5)).await;
            Ok::<_, &str>(())
        };
        let (refused, slow) = tokio::join!(roll.answer(refused), roll.answer(slow));
        assert_eq!((refused, slow), (Some(Err("refused")), Some(Ok(()))));
    }
}
