//! Bridges over a port of the host: judged, compared, and changed so that an edit that cuts the tool off undoes itself.

mod files;
mod ifupdown;
mod judge;
mod names;
mod networkd;
mod plan;

pub use judge::Refusal;
pub(super) use networkd::probe;
pub use plan::refusal;
pub(super) use plan::{apply, diff};
