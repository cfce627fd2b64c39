//! Incidents in words.

use super::document::{Incident, Step};
use crate::ui::Table;
use std::fmt::Write;

/// Incidents, a line each.
pub fn incident_table(incidents: &[Incident]) -> String {
    if incidents.is_empty() {
        return "no incidents".to_owned();
    }
    let mut table = Table::new(["incident", "began", "host", "took", "outcome", "why"]).right(0).right(3);
    for incident in incidents {
        table.row([
            incident.number.to_string(),
            incident.began.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            incident.host.clone(),
            seconds(incident.lasted_ms()),
            incident.outcome.map_or_else(|| "UNDER WAY".to_owned(), |outcome| outcome.to_string()),
            incident.why.clone(),
        ]);
    }
    table.render()
}

/// The timeline of an incident, in seconds from the first sign on, with what each step stands on.
pub fn explain(incident: &Incident) -> String {
    let mut text = format!(
        "incident {}: host {}, {}\nbegan {}, handled by {}, {}\n",
        incident.number,
        incident.host,
        incident.why,
        incident.began.strftime("%Y-%m-%d %H:%M:%S%.3fZ"),
        incident.by,
        match incident.outcome {
            Some(outcome) => format!("{outcome} after {}", seconds(incident.lasted_ms())),
            None => "not ended".to_owned(),
        }
    );
    for step in &incident.steps {
        let _ = write!(text, "\n{}", line(step));
    }
    text
}

fn line(step: &Step) -> String {
    let guest = step.guest.as_ref().map(|guest| format!("{guest}: ")).unwrap_or_default();
    let mut line = format!("{:>9}  {:14} {guest}{}", seconds(step.after_ms), step.stage.to_string(), step.text);
    for evidence in &step.evidence {
        let _ = write!(line, "\n{:11}{:14} - {evidence}", "", "");
    }
    line
}

/// Milliseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn seconds(ms: u64) -> String {
    format!("{:.2} s", ms as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::super::{Outcome, Stage};
    use super::*;
    use jiff::Timestamp;
    use uuid::Uuid;

    #[test]
    fn the_timeline_is_read_from_the_first_sign_on() {
        let step = |number, after_ms, stage, guest: Option<&str>, text: &str, evidence: &[&str]| Step {
            number,
            after_ms,
            stage,
            guest: guest.map(str::to_owned),
            text: text.to_owned(),
            evidence: evidence.iter().map(|line| (*line).to_owned()).collect(),
        };
        let incident = Incident {
            number: 7,
            id: Uuid::nil(),
            host: "h1".into(),
            why: "h1 is silent".into(),
            by: "watch@admin".into(),
            began: Timestamp::UNIX_EPOCH,
            steps: vec![
                step(0, 0, Stage::Suspected, None, "silent for 400 ms", &[]),
                step(1, 510, Stage::Verdict, None, "dead: its peers reach it on neither network", &["h2: silence"]),
                step(2, 1_934, Stage::Fenced, None, "the storage refuses 10.0.0.11 from epoch 41 on", &[]),
                step(3, 2_480, Stage::Running, Some("web"), "on h2", &[]),
                step(4, 2_500, Stage::Ended, None, "1 guest runs elsewhere", &[]),
            ],
            outcome: Some(Outcome::Recovered),
        };
        let told = [
            "incident 7: host h1, h1 is silent",
            "began 1970-01-01 00:00:00.000Z, handled by watch@admin, recovered after 2.50 s",
            "",
            "   0.00 s  suspected      silent for 400 ms",
            "   0.51 s  verdict        dead: its peers reach it on neither network",
            "                          - h2: silence",
            "   1.93 s  fenced         the storage refuses 10.0.0.11 from epoch 41 on",
            "   2.48 s  running        web: on h2",
            "   2.50 s  ended          1 guest runs elsewhere",
        ];
        assert_eq!(explain(&incident), told.join("\n"));
        let listed = incident_table(&[incident]);
        assert!(listed.ends_with("7  1970-01-01 00:00:00Z  h1    2.50 s  recovered  h1 is silent"), "{listed}");
    }
}
