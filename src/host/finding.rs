//! Something wrong with a host, and how findings are collected.

use serde::Serialize;
use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Data or service is in danger.
    Critical,
    /// It does not work.
    Error,
    /// It works worse than it could, or the next fault would hurt.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Critical => "CRITICAL",
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// Something wrong with a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The host.
    pub host: String,
    /// Stable name of the check.
    pub check: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

/// Collects findings of one host.
pub(super) struct Report<'a> {
    pub(super) host: &'a str,
    pub(super) found: &'a mut Vec<Finding>,
}

impl Report<'_> {
    pub(super) fn error(&mut self, check: &'static str, what: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Error, check, what.into(), fix.into());
    }

    pub(super) fn warning(&mut self, check: &'static str, what: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Warning, check, what.into(), fix.into());
    }

    fn add(&mut self, severity: Severity, check: &'static str, what: String, fix: String) {
        self.found.push(Finding { severity, host: self.host.to_owned(), check, what, fix });
    }
}

/// Bytes as MiB or GiB, as the inventory writes them.
pub(super) fn mib(bytes: u64) -> String {
    if bytes >= 10 << 30 { format!("{}G", bytes >> 30) } else { format!("{}M", bytes >> 20) }
}
