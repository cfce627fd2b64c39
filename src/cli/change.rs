//! The result of a command that changes things and has nothing else to show.

use super::Context;
use crate::error::Failure;
use serde::Serialize;

/// What was changed, or would be.
#[derive(Debug, Serialize)]
struct Change {
    /// What was to be done, in words.
    action: String,
    /// Whether that was only looked at.
    dry_run: bool,
    /// To what.
    objects: Vec<Object>,
}

/// What became of one object.
#[derive(Debug, Serialize)]
struct Object {
    name: String,
    /// `planned`, `done` or `unchanged`.
    outcome: &'static str,
}

impl Change {
    /// A dry run has said nothing yet; what was done was told while it was done.
    fn render(&self) -> String {
        if !self.dry_run {
            return String::new();
        }
        let lines: Vec<String> = self.objects.iter().map(|o| format!("would {}: {}", self.action, o.name)).collect();
        lines.join("\n")
    }
}

impl Context {
    /// Under `--dry-run`, shows what would be done to whom; tells whether that was it.
    pub(super) fn would<S: AsRef<str>>(&self, action: &str, names: &[S]) -> Result<bool, Failure> {
        if self.global.dry_run {
            let planned = |name: &S| Object { name: name.as_ref().to_owned(), outcome: "planned" };
            self.changed(action, names.iter().map(planned).collect())?;
        }
        Ok(self.global.dry_run)
    }

    /// Shows what was done to one object.
    pub(super) fn did(&self, action: &str, name: &str, changed: bool) -> Result<(), Failure> {
        let outcome = if changed { "done" } else { "unchanged" };
        self.changed(action, vec![Object { name: name.to_owned(), outcome }])
    }

    fn changed(&self, action: &str, objects: Vec<Object>) -> Result<(), Failure> {
        let change = Change { action: action.to_owned(), dry_run: self.global.dry_run, objects };
        self.ui.result("rackhand.change/1", &change, Change::render)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_has_a_line_for_each_and_a_change_none() {
        let object = |name: &str| Object { name: name.to_owned(), outcome: "planned" };
        let change = Change { action: "cut".to_owned(), dry_run: true, objects: vec![object("a"), object("b")] };
        assert_eq!(change.render(), "would cut: a\nwould cut: b");
        assert_eq!(Change { dry_run: false, ..change }.render(), "");
    }
}
