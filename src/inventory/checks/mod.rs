//! What a file means: rules that hold between values.

mod addresses;
mod hosts;
mod names;
mod networks;
mod storage;

use super::mistake::Mistake;
use super::view::View;

/// Checks everything; the order does not matter, mistakes are sorted by place.
pub(super) fn all(view: &View, mistakes: &mut Vec<Mistake>) {
    names::check(view, mistakes);
    addresses::check(view, mistakes);
    networks::check(view, mistakes);
    storage::check(view, mistakes);
    hosts::check(view, mistakes);
}

/// Names in one line: `h1, h2 and h3`.
fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
