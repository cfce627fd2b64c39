//! Work that several want done in one place: whoever has the turn does it for all who wait by then.
//!
//! The first one waits for nobody. Those that come meanwhile are taken together by the next, in one go: ten guests that are
//! entered on a host take two rounds and not ten.

use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Mutex as AsyncMutex, oneshot};

type Waiting<I, O> = Vec<(I, oneshot::Sender<O>)>;

/// Those who want something done in one place.
struct Group<I, O> {
    turn: AsyncMutex<()>,
    waiting: Mutex<Waiting<I, O>>,
}

/// Work by place, for example by host.
pub struct Together<I, O>(Mutex<BTreeMap<String, Arc<Group<I, O>>>>);

impl<I, O> Default for Together<I, O> {
    fn default() -> Self {
        Together(Mutex::default())
    }
}

impl<I, O> fmt::Debug for Together<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Together")
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<I: Clone, O> Together<I, O> {
    /// Has `item` done, by this caller or by another one that takes it along. `work` answers in the order of its items.
    pub async fn done<'w>(&self, place: &str, item: I, work: impl Fn(Vec<I>) -> BoxFuture<'w, Vec<O>> + Send) -> O {
        let empty = || Arc::new(Group { turn: AsyncMutex::default(), waiting: Mutex::default() });
        let group = Arc::clone(locked(&self.0).entry(place.to_owned()).or_insert_with(empty));
        loop {
            let (tell, mut told) = oneshot::channel();
            locked(&group.waiting).push((item.clone(), tell));
            let _turn = group.turn.lock().await;
            match told.try_recv() {
                Ok(answer) => return answer,
                // Whoever took it along was given up on.
                Err(TryRecvError::Closed) => continue,
                Err(TryRecvError::Empty) => {}
            }
            let mut all = std::mem::take(&mut *locked(&group.waiting));
            all.retain(|(_, tell)| !tell.is_closed());
            let (items, tell): (Vec<I>, Vec<oneshot::Sender<O>>) = all.into_iter().unzip();
            for (tell, answer) in tell.into_iter().zip(work(items).await) {
                // Whoever wanted it may have given up.
                let _ = tell.send(answer);
            }
            if let Ok(answer) = told.try_recv() {
                return answer;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::{FutureExt, join_all};
    use std::time::Duration;
    use tokio::time::{sleep, timeout};

    #[tokio::test(start_paused = true)]
    async fn the_first_waits_for_nobody_and_the_others_go_together() {
        let together = Together::<u32, u32>::default();
        let rounds = Mutex::new(Vec::new());
        let work = |items: Vec<u32>| {
            let rounds = &rounds;
            async move {
                rounds.lock().unwrap().push(items.clone());
                sleep(Duration::from_secs(1)).await;
                items.into_iter().map(|item| item * 10).collect::<Vec<u32>>()
            }
            .boxed()
        };
        let answers = join_all((1..=10).map(|item| together.done("h1", item, work))).await;
        assert_eq!(answers, (1..=10).map(|item| item * 10).collect::<Vec<u32>>());
        assert_eq!(*rounds.lock().unwrap(), [vec![1], (2..=10).collect()]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_was_taken_along_by_one_that_gave_up_does_it_anew() {
        let together = Together::<u32, u32>::default();
        let work = |items: Vec<u32>| {
            async move {
                sleep(Duration::from_secs(if items.contains(&1) { 100 } else { 1 })).await;
                items
            }
            .boxed()
        };
        let first = timeout(Duration::from_secs(5), together.done("h1", 1, work));
        let (first, second) = tokio::join!(first, together.done("h1", 2, work));
        assert!(first.is_err());
        assert_eq!(second, 2);
    }
}
