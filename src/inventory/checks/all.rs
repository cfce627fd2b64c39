//! Every rule in turn.

use super::super::mistake::Mistake;
use super::super::view::View;
use super::{addresses, hosts, names, networks, storage};

/// Checks everything; the order does not matter, mistakes are sorted by place.
pub(in crate::inventory) fn all(view: &View, mistakes: &mut Vec<Mistake>) {
    names::check(view, mistakes);
    addresses::check(view, mistakes);
    networks::check(view, mistakes);
    storage::check(view, mistakes);
    hosts::check(view, mistakes);
}
