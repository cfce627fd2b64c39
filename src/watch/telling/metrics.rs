//! Figures in the text format of Prometheus.

use super::snapshot::{HostSnapshot, Snapshot};
use crate::watch::brain::Phase;
use std::fmt::{Display, Write};

/// A label's value, fit to stand between quotes.
fn label(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", label(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn hosts<T: Display>(
        &mut self,
        snapshot: &Snapshot,
        name: &str,
        help: &str,
        value: impl Fn(&HostSnapshot) -> Option<T>,
    ) {
        self.family(name, "gauge", help);
        for host in &snapshot.hosts {
            if let Some(value) = value(host) {
                self.sample(name, &[("host", &host.name)], value);
            }
        }
    }
}

/// All figures.
pub(super) fn metrics(snapshot: &Snapshot) -> String {
    let mut text = Text(String::new());
    text.gauge("rackhand_watch_leader", "Whether this watcher leads.", u8::from(snapshot.leads));
    text.gauge("rackhand_watch_armed", "Whether the watch may act.", u8::from(snapshot.disarmed.is_none()));
    let seen = snapshot.at.as_millisecond() as f64 / 1000.0;
    text.gauge("rackhand_watch_last_seen_timestamp_seconds", "When the watcher looked last.", seen);
    if let Some((answering, quorum, members)) = snapshot.mons {
        text.gauge("rackhand_watch_mons", "Monitors of the cluster.", members);
        text.gauge("rackhand_watch_mons_answering", "Monitors that answer.", answering);
        text.gauge("rackhand_watch_mons_in_quorum", "Monitors in the quorum.", quorum);
    }
    text.hosts(snapshot, "rackhand_watch_host_up", "Whether the host's heart beats.", |h| Some(u8::from(h.beats)));
    let silence = |h: &HostSnapshot| h.silent_ms.map(|ms| ms as f64 / 1000.0);
    text.hosts(snapshot, "rackhand_watch_host_silence_seconds", "Time since the last beat.", silence);
    let disk = |h: &HostSnapshot| h.disk_ms.map(|ms| ms / 1000.0);
    text.hosts(snapshot, "rackhand_watch_host_disk_seconds", "A synced write, with the last beat.", disk);
    let libvirt = |h: &HostSnapshot| h.libvirt_ms.map(|ms| ms / 1000.0);
    text.hosts(snapshot, "rackhand_watch_host_libvirt_seconds", "An answer of libvirt, with the last beat.", libvirt);
    text.hosts(snapshot, "rackhand_watch_host_domains", "Domains that run on the host.", |h| h.domains);
    let open = |h: &HostSnapshot| Some(u8::from(h.phase > Phase::Watched));
    text.hosts(snapshot, "rackhand_watch_host_incident", "Whether the host has an open incident.", open);
    let fenced = |h: &HostSnapshot| Some(u8::from(h.phase >= Phase::Recovering));
    text.hosts(snapshot, "rackhand_watch_host_fenced", "Whether the host is proven to be shut out.", fenced);
    text.family("rackhand_watch_host_state", "gauge", "What the watch makes of the host.");
    for host in &snapshot.hosts {
        text.sample("rackhand_watch_host_state", &[("host", &host.name), ("state", &host.state)], 1);
    }
    text.family("rackhand_watch_events_total", "counter", "Events so far, by kind.");
    for (event, count) in &snapshot.counts {
        text.sample("rackhand_watch_events_total", &[("event", event)], count);
    }
    text.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn every_sample_has_a_family_and_labels_are_quoted() {
        let host = HostSnapshot {
            name: "h\"1\\\n".into(),
            beats: false,
            silent_ms: Some(1_500),
            disk_ms: Some(2.5),
            libvirt_ms: None,
            domains: Some(3),
            state: "dead".into(),
            reason: String::new(),
            phase: Phase::Recovering,
        };
        let snapshot = Snapshot {
            mons: Some((2, 2, 3)),
            hosts: vec![host],
            counts: BTreeMap::from([("fenced".to_owned(), 1)]),
            ..Snapshot::default()
        };
        let text = metrics(&snapshot);
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap();
            } else if !line.starts_with('#') {
                assert_eq!(line.split(['{', ' ']).next().unwrap(), family, "{line}");
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
        for line in [
            r#"rackhand_watch_host_silence_seconds{host="h\"1\\\n"} 1.5"#,
            r#"rackhand_watch_host_fenced{host="h\"1\\\n"} 1"#,
            r#"rackhand_watch_host_state{host="h\"1\\\n",state="dead"} 1"#,
            r#"rackhand_watch_events_total{event="fenced"} 1"#,
            "rackhand_watch_mons_in_quorum 2",
            "rackhand_watch_armed 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("libvirt_seconds{"), "what is not known is not told");
    }

    #[test]
    fn the_dashboard_shows_every_figure_and_no_other() {
        let dashboard = include_str!("../../../docs/grafana-dashboard.json");
        let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
        let named: BTreeSet<&str> = dashboard
            .match_indices("rackhand_watch_")
            .map(|(at, _)| dashboard[at..].split(|c| !is_part(c)).next().unwrap())
            .collect();
        let text = metrics(&Snapshot { mons: Some((3, 3, 3)), ..Snapshot::default() });
        let told: BTreeSet<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(named, told);
        assert!(serde_json::from_str::<serde_json::Value>(dashboard).is_ok());
    }
}
