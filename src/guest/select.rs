//! Which guests a command is for: names, globs, ids, tags, a host, or all.

use super::spec::Guest;
use crate::error::Failure;
use globset::Glob;
use std::collections::BTreeSet;

/// What the operator named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Names, globs and ids.
    pub names: Vec<String>,
    /// Tags, `KEY=VALUE` or `KEY`; a guest has to have all of them.
    pub tags: Vec<String>,
    /// Every guest.
    pub all: bool,
}

impl Selection {
    /// Whether nothing at all was named.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.tags.is_empty() && !self.all
    }

    /// The guests it names, in the order of `guests`; an empty one names all or none as `empty_is_all` says.
    ///
    /// # Errors
    /// When a name matches no guest, or nothing was named where something has to be.
    pub fn pick(&self, guests: Vec<Guest>, empty_is_all: bool) -> Result<Vec<Guest>, Failure> {
        if self.is_empty() && !empty_is_all {
            return Err(Failure::usage("no guest named").hint("name guests, or use --tag, --host or --all"));
        }
        let mut wanted: Option<BTreeSet<usize>> = None;
        if !self.names.is_empty() {
            let mut found = BTreeSet::new();
            for name in &self.names {
                let hits = matching(&guests, name)?;
                if hits.is_empty() {
                    return Err(
                        Failure::usage(format!("no guest `{name}`")).hint("see the guests with `rackhand guest list`")
                    );
                }
                found.extend(hits);
            }
            wanted = Some(found);
        }
        let keep = |n: usize, guest: &Guest| {
            wanted.as_ref().is_none_or(|w| w.contains(&n)) && self.tags.iter().all(|tag| has_tag(guest, tag))
        };
        Ok(guests.into_iter().enumerate().filter(|(n, g)| keep(*n, g)).map(|(_, g)| g).collect())
    }
}

fn matching(guests: &[Guest], name: &str) -> Result<Vec<usize>, Failure> {
    let glob = Glob::new(name).map_err(|e| Failure::usage(format!("`{name}` is not a name pattern: {e}")))?;
    let glob = glob.compile_matcher();
    let hit = |g: &Guest| glob.is_match(&g.name) || g.uuid.to_string() == name;
    Ok(guests.iter().enumerate().filter(|(_, g)| hit(g)).map(|(n, _)| n).collect())
}

fn has_tag(guest: &Guest, tag: &str) -> bool {
    match tag.split_once('=') {
        Some((key, value)) => guest.tags.get(key).is_some_and(|v| v == value),
        None => guest.tags.contains_key(tag),
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::sample;
    use super::*;

    fn guests() -> Vec<Guest> {
        let mut guests: Vec<Guest> = ["db-1", "web-1", "web-2"].map(sample).into();
        guests[2].tags.insert("stage".into(), "test".into());
        guests
    }

    fn pick(names: &[&str], tags: &[&str]) -> Result<Vec<String>, Failure> {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let selection = Selection { names: owned(names), tags: owned(tags), all: false };
        selection.pick(guests(), false).map(|g| g.into_iter().map(|g| g.name).collect())
    }

    #[test]
    fn names_globs_ids_and_tags() {
        assert_eq!(pick(&["web-*"], &[]).unwrap(), ["web-1", "web-2"]);
        assert_eq!(pick(&["db-1", "web-1"], &[]).unwrap(), ["db-1", "web-1"]);
        assert_eq!(pick(&[&sample("db-1").uuid.to_string()], &[]).unwrap(), ["db-1"]);
        assert_eq!(pick(&["web-*"], &["stage=test"]).unwrap(), ["web-2"]);
        assert_eq!(pick(&[], &["stage"]).unwrap(), ["web-2"]);
        assert!(pick(&["nobody"], &[]).unwrap_err().to_string().contains("no guest `nobody`"));
        assert!(pick(&[], &[]).is_err());
    }
}
