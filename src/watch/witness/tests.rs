use super::testing::{BeatingHost, Mode, WELL};
use super::*;
use crate::cluster::{ClusterPort, FakeCluster};
use crate::ssh::Remote;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_millis(900);

fn stream(host: &Arc<BeatingHost>) -> (HostStream, mpsc::Receiver<Report>) {
    let (tell, told) = mpsc::channel(1024);
    let remote = Arc::clone(host) as Arc<dyn Remote>;
    (HostStream::open(remote, Pace::of(PATIENCE), true, tell), told)
}

fn host() -> Arc<BeatingHost> {
    BeatingHost::new("h1", Pace::of(PATIENCE).interval)
}

/// The next report that is one of these.
async fn until(told: &mut mpsc::Receiver<Report>, wanted: impl Fn(&Report) -> bool) -> Report {
    let found = async {
        loop {
            let report = told.recv().await.unwrap();
            if wanted(&report) {
                return report;
            }
        }
    };
    timeout(Duration::from_secs(60), found).await.expect("no such report came")
}

fn is_beat(report: &Report) -> bool {
    matches!(report, Report::Beat { .. })
}

fn is_end(report: &Report) -> bool {
    matches!(report, Report::Ended { .. })
}

#[test]
fn six_beats_fit_into_the_patience_and_two_into_a_second() {
    assert_eq!(Pace::of(PATIENCE).interval, Duration::from_millis(150));
    assert_eq!(Pace::of(Duration::from_secs(3)).interval, Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn a_heart_that_beats_is_told_beat_by_beat_with_what_the_work_took() {
    let host = host();
    let (_stream, mut told) = stream(&host);
    assert_eq!(told.recv().await, Some(Report::Connected { host: "h1".into(), boot: "b1".into() }));
    for number in 1..=8 {
        let Some(Report::Beat { beat, .. }) = told.recv().await else { panic!("no beat") };
        assert_eq!((beat.number, beat.domains), (number, Some(2)));
        assert_eq!(beat.disk, Work::Took(Duration::from_micros(600)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_disk_and_a_stuck_libvirt_do_not_stop_the_beats() {
    let host = host();
    let (_stream, mut told) = stream(&host);
    until(&mut told, is_beat).await;
    host.becomes(Mode::Beats { disk: r#"{"took":850}"#, libvirt: r#"{"late":4000}"# });
    until(&mut told, is_beat).await;
    let Report::Beat { beat, .. } = until(&mut told, is_beat).await else { panic!("no beat") };
    assert_eq!(beat.disk, Work::Took(Duration::from_millis(850)));
    assert_eq!(beat.libvirt, Some(Work::Late(Duration::from_secs(4))));
}

#[tokio::test(start_paused = true)]
async fn garbage_is_a_lost_beat_and_too_long_a_line_the_end() {
    let host = host();
    let (_stream, mut told) = stream(&host);
    host.becomes(Mode::Says("\u{1b}[2J Last login".into()));
    assert_eq!(
        until(&mut told, |r| !matches!(r, Report::Connected { .. })).await,
        Report::Garbled { host: "h1".into() }
    );
    host.becomes(Mode::Says("x".repeat(5000)));
    let why = until(&mut told, is_end).await;
    assert_eq!(why, Report::Ended { host: "h1".into(), why: "it says more than 4096 bytes in a line".into() });
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_is_told_at_once_and_opened_anew() {
    let host = host();
    let (_stream, mut told) = stream(&host);
    until(&mut told, is_beat).await;
    let down = Instant::now();
    host.becomes(Mode::Down);
    assert_eq!(until(&mut told, is_end).await, Report::Ended { host: "h1".into(), why: "the stream ended".into() });
    assert!(down.elapsed() < Duration::from_millis(300));
    let Report::Ended { why, .. } = until(&mut told, is_end).await else { panic!("no end") };
    assert!(why.contains("no route to host"), "{why}");
    host.becomes(WELL);
    until(&mut told, |r| matches!(r, Report::Connected { .. })).await;
    until(&mut told, is_beat).await;
    assert_eq!(host.connects.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_is_connected_to_anew_until_it_answers() {
    let host = host();
    let (_stream, mut told) = stream(&host);
    until(&mut told, is_beat).await;
    host.becomes(Mode::Silent);
    let Report::Ended { why, .. } = until(&mut told, is_end).await else { panic!("no end") };
    assert_eq!(why, "silent for 3.0 s");
    let Report::Ended { why, .. } = until(&mut told, is_end).await else { panic!("no end") };
    assert_eq!(why, "no heartbeat within 8 s of connecting");
    host.becomes(WELL);
    until(&mut told, is_beat).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_tells_whom_it_reaches_and_one_that_does_not_say_so_in_time_is_no_witness() {
    let host = host();
    let (stream, mut told) = stream(&host);
    let probe = Probe {
        ask: vec![("10.0.0.2".parse().unwrap(), vec![22]), ("10.1.0.2".parse().unwrap(), vec![22, 6800])],
        within: Duration::from_millis(300),
    };
    assert_eq!(stream.probe(&probe).await, None, "it is not connected yet");
    until(&mut told, is_beat).await;
    assert_eq!(stream.probe(&probe).await, Some(vec![true, true]));
    host.unreached.lock().unwrap().as_mut().unwrap().insert("10.1.0.2".into());
    assert_eq!(stream.probe(&probe).await, Some(vec![true, false]));
    *host.unreached.lock().unwrap() = None;
    let began = Instant::now();
    assert_eq!(stream.probe(&probe).await, None);
    assert!(began.elapsed() <= Duration::from_millis(600));
}

#[tokio::test(start_paused = true)]
async fn mons_are_asked_and_nudged_each_for_itself() {
    let port = FakeCluster::new();
    let status = json!({"state": "peon", "quorum": [0], "monmap": {"mons": [{"rank": 0, "name": "h1"}]}});
    port.answer("mon.h1 mon_status", status);
    port.answer("mon.h1 quorum enter", json!("started responding to quorum, initiated new election"));
    let port: Arc<dyn ClusterPort> = Arc::new(port);
    let (tell, mut told) = mpsc::channel(64);
    let mons = MonWitness::open(port, &["h1".to_owned(), "h2".to_owned()], &tell);
    mons.ask(7);
    let seen = until(&mut told, |r| matches!(r, Report::Mon { host, .. } if host == "h1")).await;
    let Report::Mon { view, round: 7, .. } = seen else { panic!("no view") };
    assert!(view.in_quorum());
    mons.ask(8);
    until(&mut told, |r| matches!(r, Report::MonSilent { host, round: 8, .. } if host == "h2")).await;
    let nudged = mons.nudge(&["h1".to_owned(), "h2".to_owned()]).await;
    let answered: Vec<_> = nudged.iter().map(|(host, answer)| (host.as_str(), answer.is_ok())).collect();
    assert_eq!(answered, [("h1", true), ("h2", false)]);
}
