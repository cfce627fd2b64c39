//! How many connect at once.

use std::future::Future;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// Connects at once through one jump host, whose sshd starts to refuse at ten (MaxStartups 10:30:100).
pub(super) const THROUGH_A_JUMP: usize = 8;
/// Connects at once otherwise: each is a process that computes for a while.
pub(super) const DIRECT: usize = 16;
/// A connect that takes longer than this waits for the other side and no longer holds back others.
const HOLD: Duration = Duration::from_secs(3);

/// Lets so many connects compute at once; one that hangs delays the others by [`HOLD`] at most.
#[derive(Debug)]
pub(super) struct ConnectLimit(Semaphore);

impl ConnectLimit {
    pub(super) fn new(slots: usize) -> Self {
        ConnectLimit(Semaphore::new(slots))
    }

    pub(super) async fn pass<T>(&self, work: impl Future<Output = T>) -> T {
        let slot = self.0.acquire().await;
        tokio::pin!(work);
        tokio::select! {
            result = &mut work => return result,
            () = sleep(HOLD) => drop(slot),
        }
        work.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_lets_the_next_pass() {
        let gate = ConnectLimit::new(1);
        tokio::select! {
            () = gate.pass(pending::<()>()) => unreachable!("it never ends"),
            () = async { sleep(Duration::from_millis(1)).await; gate.pass(async {}).await } => {}
        }
    }
}
