//! What a host says of itself, line by line. Nothing of it is trusted: what cannot be read is a lost beat.

use serde::Deserialize;
use std::time::Duration;

/// Bytes of a line at most; a beat has about a hundred.
pub(super) const LINE: usize = 4096;
/// The first line says this.
const HELLO: &str = "rackhand-beat/1";
/// Longest time a host may claim that something took; more is nonsense.
const LONGEST: f64 = 86_400_000.0;

/// A piece of real work that a host does with each beat.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// It took this long.
    Took(Duration),
    /// It is still under way, since then.
    Late(Duration),
    /// It failed, in the host's words.
    Failed(String),
}

/// A heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub struct Beat {
    /// Its number; they go up by one.
    pub number: u64,
    /// Writing a block to the system's disk and waiting until it is there.
    pub disk: Work,
    /// An answer of libvirt, on hosts that run guests.
    pub libvirt: Option<Work>,
    /// Domains that libvirt counts as running, where it answered.
    pub domains: Option<u32>,
}

/// A line of the heartbeat script.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Line {
    /// It begins; with the id of this boot.
    Hello(String),
    /// A heartbeat.
    Beat(Beat),
    /// Which of the addresses that a probe asked for answer.
    Probe(u64, Vec<bool>),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawWork {
    Took(f64),
    Late(f64),
    Failed(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawLine {
    Hello { hello: String, boot: String },
    Beat { beat: u64, disk: RawWork, libvirt: Option<RawWork>, domains: Option<u32> },
    Probe { probe: u64, alive: Vec<bool> },
}

fn duration(millis: f64) -> Option<Duration> {
    (0.0..LONGEST).contains(&millis).then(|| Duration::from_secs_f64(millis / 1000.0))
}

fn work(raw: RawWork) -> Option<Work> {
    Some(match raw {
        RawWork::Took(millis) => Work::Took(duration(millis)?),
        RawWork::Late(millis) => Work::Late(duration(millis)?),
        RawWork::Failed(words) => Work::Failed(crate::quote::plain(&words, 200)),
    })
}

/// Reads a line; nothing where it is none of the script's.
pub(super) fn parse(line: &[u8]) -> Option<Line> {
    match serde_json::from_slice(line).ok()? {
        RawLine::Hello { hello, boot } if hello == HELLO => Some(Line::Hello(crate::quote::plain(&boot, 80))),
        RawLine::Hello { .. } => None,
        RawLine::Probe { probe, alive } => Some(Line::Probe(probe, alive)),
        RawLine::Beat { beat: number, disk, libvirt, domains } => {
            let libvirt = match libvirt {
                Some(raw) => Some(work(raw)?),
                None => None,
            };
            Some(Line::Beat(Beat { number, disk: work(disk)?, libvirt, domains }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_read_as_what_they_are() {
        let millis = Duration::from_millis;
        let table: [(&str, Option<Line>); 9] = [
            (r#"{"hello":"rackhand-beat/1","boot":"b1"}"#, Some(Line::Hello("b1".into()))),
            (r#"{"hello":"rackhand-beat/2","boot":"b1"}"#, None),
            (
                r#"{"beat":7,"disk":{"took":2.5},"libvirt":{"late":700},"domains":null}"#,
                Some(Line::Beat(Beat {
                    number: 7,
                    disk: Work::Took(Duration::from_micros(2500)),
                    libvirt: Some(Work::Late(millis(700))),
                    domains: None,
                })),
            ),
            (
                r#"{"beat":8,"disk":{"failed":"OSError: \u001b[2J"}}"#,
                Some(Line::Beat(Beat {
                    number: 8,
                    disk: Work::Failed("OSError: [2J".into()),
                    libvirt: None,
                    domains: None,
                })),
            ),
            (r#"{"probe":3,"alive":[true,false]}"#, Some(Line::Probe(3, vec![true, false]))),
            (r#"{"beat":9,"disk":{"took":-1}}"#, None),
            (r#"{"beat":9,"disk":{"took":1e300}}"#, None),
            (r#"{"beat":9}"#, None),
            ("Last login: yesterday", None),
        ];
        for (line, expected) in table {
            assert_eq!(parse(line.as_bytes()), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_host_says_is_survived(line in prop::collection::vec(any::<u8>(), 0..300)) {
            parse(&line);
        }
    }
}
