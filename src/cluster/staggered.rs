//! The first of several places that answers.

use futures::stream::{FuturesUnordered, StreamExt};
use std::time::Duration;
use tokio::time::sleep;

/// The first answer; each place is asked `stagger` after the one before it, at once when that one failed. Where none
/// answers: why not, in the order in which they failed.
pub(crate) async fn first_of<P, T, E, F: Future<Output = Result<T, E>>>(
    places: impl IntoIterator<Item = P>,
    stagger: Duration,
    ask: impl Fn(P) -> F,
) -> Result<T, Vec<E>> {
    let mut waiting = places.into_iter().peekable();
    let mut trying = FuturesUnordered::new();
    let mut errors = Vec::new();
    loop {
        let pause = if trying.is_empty() { Duration::ZERO } else { stagger };
        let more = waiting.peek().is_some();
        tokio::select! {
            biased;
            Some(result) = trying.next(), if !trying.is_empty() => match result {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    errors.push(error);
                    trying.extend(waiting.next().map(&ask));
                }
            },
            () = sleep(pause), if more => trying.extend(waiting.next().map(&ask)),
            else => return Err(errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    /// Asks places that answer or fail (`Err`) after these seconds.
    async fn asked(places: &[Result<u64, u64>]) -> (Result<u64, Vec<u64>>, u64) {
        let began = Instant::now();
        let answer = first_of(places, Duration::from_secs(2), |place| async move {
            sleep(Duration::from_secs(place.unwrap_or_else(|e| e))).await;
            *place
        });
        (answer.await, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_hangs_or_fails_delays_the_next_for_a_moment_only() {
        assert_eq!(asked(&[Ok(1), Ok(0)]).await, (Ok(1), 1), "the second is not even asked");
        assert_eq!(asked(&[Ok(99), Ok(1)]).await, (Ok(1), 3));
        assert_eq!(asked(&[Err(1), Ok(4)]).await, (Ok(4), 5));
        assert_eq!(asked(&[Err(5), Err(5), Err(5)]).await, (Err(vec![5, 5, 5]), 9));
        assert_eq!(asked(&[]).await, (Err(Vec::new()), 0));
    }
}
