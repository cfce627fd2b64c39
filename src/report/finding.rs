//! One thing that is wrong or risky.

use crate::host::Severity;
use serde::Serialize;

/// Something that is wrong or risky.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// `host h1`, `guest web-1`, `ceph`.
    pub object: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl Finding {
    /// Puts one together.
    pub fn new(
        severity: Severity,
        object: impl Into<String>,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding { severity, object: object.into(), what: what.into(), fix: fix.into() }
    }
}
