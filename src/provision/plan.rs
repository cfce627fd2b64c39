//! The plan as people and scripts see it.

use crate::error::{Failure, Kind, LocalExt};
use crate::playbook::{Action, Change, Findings, Skipped};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Everything provisioning would do, step by step; nothing in it is a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Fingerprint of what is wanted: the inventory, the playbooks, the program.
    pub wanted: String,
    /// The steps in their order, those without anything to do left out.
    pub steps: Vec<PlannedStep>,
}

/// What one step would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Its name.
    pub step: String,
    /// What it found.
    #[serde(flatten)]
    pub findings: Findings,
}

impl Plan {
    /// The schema of a saved plan.
    pub const SCHEMA: &'static str = "rackhand.plan/1";

    /// Reads a plan that `--dry-run -o json` has written.
    ///
    /// # Errors
    /// When it is none (exit 2).
    pub fn read(text: &str) -> Result<Plan, Failure> {
        let document: Value = serde_json::from_str(text).or_kind(Kind::Usage)?;
        match document["schema"].as_str() {
            Some(Self::SCHEMA) => serde_json::from_value(document).or_kind(Kind::Usage),
            other => {
                Err(Failure::usage(format!("its schema is `{}`, not `{}`", other.unwrap_or("none"), Self::SCHEMA)))
            }
        }
    }

    /// Makes sure that this plan does nothing but what was agreed on. What of that is done by now may be missing.
    ///
    /// # Errors
    /// When the plan that was agreed on is out of date (exit 5).
    pub fn within(&self, agreed: &Plan) -> Result<(), Failure> {
        let again = "plan again: nothing was changed";
        if self.wanted != agreed.wanted {
            let what = "the inventory, a playbook or rackhand itself has changed since the plan was made";
            return Err(Failure::refused(what).hint(again));
        }
        let more: Vec<&Change> = self.changes().filter(|c| !agreed.changes().any(|a| same(a, c))).collect();
        let Some((first, rest)) = more.split_first() else { return Ok(()) };
        let words = |c: &Change| format!("host {}: {}: {}", c.host, c.step, c.object);
        let failure =
            Failure::refused(format!("{} is not in the plan that was agreed on, or not like this", words(first)));
        Err(rest.iter().fold(failure, |failure, change| failure.hint(format!("nor is {}", words(change)))).hint(again))
    }

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

/// Whether two plans mean the same change; the words for a start or a wait tell what was waited for just then.
fn same(a: &Change, b: &Change) -> bool {
    let words = |c: &Change| if c.action == Action::Run { String::new() } else { c.detail.clone() };
    (&a.host, &a.step, &a.object, a.action, words(a), &a.diff)
        == (&b.host, &b.step, &b.object, b.action, words(b), &b.diff)
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

    fn plan(wanted: &str, changes: &[&Change]) -> Plan {
        let changes: Vec<Change> = changes.iter().map(|c| (*c).clone()).collect();
        Plan { wanted: wanted.to_owned(), steps: vec![PlannedStep { step: "os".into(), findings: changes.into() }] }
    }

    #[test]
    fn a_saved_plan_is_read_back_and_holds_while_nothing_more_is_to_do() {
        let file = Change::new("h1", "os", Action::Create, "file /etc/motd").diff("+hello");
        let start = Change::new("h2", "os", Action::Run, "service x").detail("start");
        let agreed = plan("1", &[&file, &start]);
        let mut saved = serde_json::to_value(&agreed).unwrap();
        saved["schema"] = Plan::SCHEMA.into();
        assert_eq!(Plan::read(&saved.to_string()).unwrap(), agreed);
        for wrong in ["", "{}", r#"{"schema":"rackhand.facts/1"}"#, r#"{"schema":"rackhand.plan/1","steps":3}"#] {
            assert_eq!(Plan::read(wrong).unwrap_err().kind, Kind::Usage, "{wrong}");
        }

        let restart = start.clone().detail("restart for /etc/x");
        for now in [plan("1", &[&file, &start]), plan("1", &[&restart]), plan("1", &[])] {
            now.within(&agreed).unwrap();
        }
        let other = file.clone().diff("+bye");
        let elsewhere = Change::new("h3", "os", Action::Create, "file /etc/motd").diff("+hello");
        for (now, word) in [
            (plan("1", &[&other]), "host h1: os: file /etc/motd"),
            (plan("1", &[&file, &elsewhere]), "host h3"),
            (plan("2", &[&file]), "inventory"),
        ] {
            let failure = now.within(&agreed).unwrap_err();
            assert_eq!(failure.kind, Kind::Refused);
            assert!(failure.to_string().contains(word), "{failure}");
        }
    }

    #[test]
    fn a_plan_reads_by_host_with_its_diffs() {
        let file = Change::new("h1", "os", Action::Create, "file /etc/motd").diff("+hello");
        let start = Change::new("h2", "time", Action::Run, "service chrony.service").detail("enable, start");
        let skipped =
            Skipped { host: "h1".into(), step: "os".into(), object: "watchdog".into(), reason: "container".into() };
        let mut first = Findings::from(vec![file]);
        first.skipped.push(skipped);
        let plan = Plan {
            wanted: String::new(),
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
