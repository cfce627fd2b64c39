//! The plan as people and scripts see it.

use crate::playbook::{Change, Findings, Skipped};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Everything provisioning would do, step by step; nothing in it is a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The steps in their order, those without anything to do left out.
    pub steps: Vec<PlannedStep>,
}

/// What one step would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedStep {
    /// Its name.
    pub step: String,
    /// What it found.
    #[serde(flatten)]
    pub findings: Findings,
}

impl Plan {
    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.changes().count()
    }

    /// Whether nothing has to be done.
    pub fn is_empty(&self) -> bool {
        self.changes().next().is_none()
    }

    /// All changes in their order.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.steps.iter().flat_map(|s| &s.findings.changes)
    }

    /// What cannot be done on some host.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.steps.iter().flat_map(|s| &s.findings.skipped)
    }

    /// What must not be done.
    pub fn refused(&self) -> impl Iterator<Item = &Skipped> {
        self.steps.iter().flat_map(|s| &s.findings.refused)
    }

    /// The plan for people: by host, then by step, with diffs.
    pub fn render(&self) -> String {
        let hosts: BTreeSet<&str> = self
            .changes()
            .map(|c| c.host.as_str())
            .chain(self.skipped().chain(self.refused()).map(|s| s.host.as_str()))
            .collect();
        let mut text = String::new();
        for host in hosts {
            let _ = writeln!(text, "{host}");
            for step in &self.steps {
                let changes = step.findings.changes.iter().filter(|c| c.host == host);
                for change in changes {
                    render_change(change, &mut text);
                }
                for skipped in step.findings.skipped.iter().filter(|s| s.host == host) {
                    let _ = writeln!(text, "  . {}: {}  skipped: {}", skipped.step, skipped.object, skipped.reason);
                }
                for refused in step.findings.refused.iter().filter(|s| s.host == host) {
                    let _ = writeln!(text, "  x {}: {}  refused: {}", refused.step, refused.object, refused.reason);
                }
            }
        }
        if self.is_empty() {
            text.push_str("nothing to do\n");
        }
        text
    }
}

fn render_change(change: &Change, text: &mut String) {
    let Change { step, object, action, detail, .. } = change;
    let _ = write!(text, "  {} {step}: {object}", action.sign());
    let _ = if detail.is_empty() { writeln!(text) } else { writeln!(text, "  ({detail})") };
    for line in change.diff.iter().flat_map(|d| d.lines()) {
        let _ = writeln!(text, "      {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playbook::Action;

    #[test]
    fn a_plan_reads_by_host_with_its_diffs() {
        let file = Change::new("h1", "os", Action::Create, "file /etc/motd").diff("+hello");
        let start = Change::new("h2", "time", Action::Run, "service chrony.service").detail("enable, start");
        let skipped =
            Skipped { host: "h1".into(), step: "os".into(), object: "watchdog".into(), reason: "container".into() };
        let mut first = Findings::from(vec![file]);
        first.skipped.push(skipped);
        let plan = Plan {
            steps: vec![
                PlannedStep { step: "os".into(), findings: first },
                PlannedStep { step: "time".into(), findings: vec![start].into() },
            ],
        };
        insta::assert_snapshot!(plan.render(), @r"
        h1
          + os: file /etc/motd
              +hello
          . os: watchdog  skipped: container
        h2
          ! time: service chrony.service  (enable, start)
        ");
        assert_eq!(Plan::default().render(), "nothing to do\n");
    }
}
