//! A strict guest waits for the proof that its host is off.

use super::recovery_tests::bench;
use crate::error::Kind;
use crate::fence;
use crate::guest::{FailoverPolicy, How, set_failover, start, stop};

#[tokio::test(start_paused = true)]
async fn a_strict_guest_starts_elsewhere_once_its_host_was_seen_off_and_a_data_safe_one_at_once() {
    let bench = bench(&["a", "b"]).await;
    set_failover(&bench.rack, &bench.guests[..1], FailoverPolicy::Strict).await.remove(0).1.unwrap();
    let record = bench.loss().fence(None, |_| ()).await.unwrap();
    let restarted = bench.restart().await;
    assert_eq!(restarted[0], Err(Kind::Refused), "{restarted:?}");
    assert!(restarted[1].is_ok(), "{restarted:?}");
    assert_eq!(bench.claim(0).await.host.as_deref(), Some("h1"), "its claim goes on naming the host");
    // Another name proves nothing, and is not kept.
    assert_eq!(bench.loss().seen_off(&record, "h2").await.unwrap_err().kind, Kind::Usage);
    assert_eq!(bench.restart().await, [Err(Kind::Refused)]);
    let proof = bench.loss().seen_off(&record, "h1").await.unwrap();
    assert!(!proof.is_by_bmc());
    let kept = fence::records(bench.cluster.as_ref()).await.unwrap().remove("h1").unwrap();
    assert_eq!(kept.power, Some(proof));
    assert_ne!(bench.restart().await.remove(0).unwrap(), "h1");
}

#[tokio::test(start_paused = true)]
async fn a_persons_word_never_stands_for_the_storage() {
    let bench = bench(&["a"]).await;
    set_failover(&bench.rack, &bench.guests, FailoverPolicy::Strict).await.remove(0).1.unwrap();
    let record = bench.loss().fence(None, |_| ()).await.unwrap();
    bench.loss().seen_off(&record, "h1").await.unwrap();
    // The storage takes its writes again.
    bench.cluster.answer("osd dump", super::recovery_tests::map(&[], 0));
    assert_eq!(bench.loss().restart(&|_, _| ()).await.unwrap_err().kind, Kind::Refused);
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_a_strict_guest_does_not_stand_for_the_proof() {
    let bench = bench(&["a"]).await;
    let guest = set_failover(&bench.rack, &bench.guests, FailoverPolicy::Strict).await.remove(0).1.unwrap();
    let guests = [guest];
    let record = bench.loss().fence(None, |_| ()).await.unwrap();
    let failure = stop(&bench.rack, &guests, How::Force).await.unwrap().remove(0).1.unwrap_err();
    assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
    assert_eq!(bench.claim(0).await.host.as_deref(), Some("h1"), "its claim goes on naming the host");
    assert_eq!(start(&bench.rack, &guests, None).await.remove(0).1.unwrap_err().kind, Kind::Refused);
    assert_eq!(bench.restart().await, [], "it shall not run");
    bench.loss().seen_off(&record, "h1").await.unwrap();
    stop(&bench.rack, &guests, How::Force).await.unwrap().remove(0).1.unwrap();
    assert_ne!(start(&bench.rack, &guests, None).await.remove(0).1.unwrap().host, "h1");
}

#[tokio::test(start_paused = true)]
async fn a_word_for_a_fence_that_was_made_anew_is_not_said_to_be_kept() {
    let bench = bench(&["a"]).await;
    let mut record = bench.loss().fence(None, |_| ()).await.unwrap();
    record.since = jiff::Timestamp::UNIX_EPOCH;
    assert_eq!(bench.loss().seen_off(&record, "h1").await.unwrap_err().kind, Kind::Failed);
    assert_eq!(fence::records(bench.cluster.as_ref()).await.unwrap()["h1"].power, None);
}
