//! Every rule in turn.

use super::super::diagnostic::Diagnostic;
use super::super::view::View;
use super::{addresses, hosts, names, networks, storage};

/// Checks everything; the order does not matter, mistakes are sorted by place.
pub(in crate::inventory) fn all(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    names::check(view, diagnostics);
    addresses::check(view, diagnostics);
    networks::check(view, diagnostics);
    storage::check(view, diagnostics);
    hosts::check(view, diagnostics);
}
