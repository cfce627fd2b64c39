//! Which points there are, and whether they can be restored as far as names and sizes tell.

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Consistency, Manifest};
use crate::mark;
use crate::request::{Listed, PointKind, PointPath, PointSummary, Selection, Shown, TEMPLATES};
use crate::store::{At, DEFINITION, Store, check_joint, check_name, read_small};
use jiff::civil::DateTime;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The manifests of a guest's points, or why one cannot be read.
pub(crate) struct Points<'a> {
    store: &'a Store,
    cluster: String,
    guest: String,
    pub(crate) manifests: BTreeMap<String, Result<Manifest>>,
}

/// When a point was taken (UTC), from its name.
pub(crate) fn taken_at(point: &str) -> Option<DateTime> {
    let (time, suffix) = point.split_at_checked(16)?;
    let sound = suffix.is_empty() || suffix.strip_prefix('-').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    let ours = time.bytes().enumerate().all(|(n, byte)| match n {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    });
    if !sound || !ours {
        return None;
    }
    let part = |from: usize, to: usize| time[from..to].parse::<i16>().ok();
    let small = |from: usize, to: usize| time[from..to].parse::<i8>().ok();
    DateTime::new(part(0, 4)?, small(4, 6)?, small(6, 8)?, small(9, 11)?, small(11, 13)?, small(13, 15)?, 0).ok()
}

impl<'a> Points<'a> {
    /// Reads the manifests of a guest.
    pub(crate) fn read(store: &'a Store, at: At<'_>) -> Result<Self> {
        let names = store.points(at)?;
        let manifests = names.into_iter().map(|point| (point.clone(), store.manifest(at, &point))).collect();
        Ok(Self { store, cluster: at.cluster.to_owned(), guest: at.guest.to_owned(), manifests })
    }

    fn at(&self) -> At<'_> {
        At { cluster: &self.cluster, guest: &self.guest }
    }

    fn manifest(&self, point: &str) -> Result<&Manifest> {
        match self.manifests.get(point) {
            Some(Ok(manifest)) => Ok(manifest),
            Some(Err(error)) => Err(error.clone()),
            None => Err(Error::new(ErrorKind::NotFound, format!("point {point} is not there"))),
        }
    }

    /// The points that one stands on, oldest first, itself last.
    pub(crate) fn chain(&self, point: &str) -> Result<Vec<&Manifest>> {
        let mut chain = vec![self.manifest(point)?];
        while let Some(parent) = chain.last().and_then(|m| m.parent_point.as_deref()) {
            if chain.len() > self.manifests.len() {
                return Err(Error::damaged(format!("the chain of point {point} runs in a circle")));
            }
            let manifest = self.manifest(parent).map_err(|error| match error.kind {
                ErrorKind::NotFound => {
                    let child = chain.last().map_or(point, |m| m.point.as_str());
                    Error::damaged(format!("point {child} is a difference to {parent}, which is not there"))
                }
                _ => error,
            })?;
            if let Some(child) = chain.last() {
                check_joint(manifest, child)?;
            }
            chain.push(manifest);
        }
        chain.reverse();
        Ok(chain)
    }

    /// One line about a point.
    pub(crate) fn summary(&self, point: &str) -> Result<PointSummary> {
        let manifest = self.manifest(point)?;
        let chain = self.chain(point);
        let kind = match (&manifest.parent_point, manifest.folded.is_empty()) {
            (Some(_), _) => PointKind::Incremental,
            (None, true) => PointKind::Full,
            (None, false) => PointKind::Synthetic,
        };
        let problem = match &chain {
            Err(error) => Some(error.message.clone()),
            Ok(chain) => chain.iter().find_map(|m| missing(self.store, self.at(), m)),
        };
        Ok(PointSummary {
            cluster: manifest.cluster.clone(),
            guest: manifest.guest.clone(),
            name: manifest.name.clone(),
            point: point.to_owned(),
            parent: manifest.parent_point.clone(),
            taken_at: taken_at(point).map(|time| format!("{time}Z")),
            kind,
            consistency: manifest.consistency,
            disks: manifest.disks.len(),
            image_bytes: manifest.disks.iter().map(|d| d.size).sum(),
            stored_bytes: stored(&self.store.directory(self.at(), point)),
            chain: chain.map_or(1, |chain| chain.len()),
            problem,
        })
    }

    /// One line about each point, those that cannot be read included.
    fn summaries(&self) -> Vec<PointSummary> {
        let unreadable = |point: &String, error: Error| PointSummary {
            cluster: self.cluster.clone(),
            guest: self.guest.clone(),
            name: String::new(),
            point: point.clone(),
            parent: None,
            taken_at: taken_at(point).map(|time| format!("{time}Z")),
            kind: PointKind::Full,
            consistency: Consistency::Crash,
            disks: 0,
            image_bytes: 0,
            stored_bytes: stored(&self.store.directory(self.at(), point)),
            chain: 1,
            problem: Some(error.message),
        };
        let one = |point: &String| self.summary(point).unwrap_or_else(|error| unreadable(point, error));
        self.manifests.keys().map(one).collect()
    }
}

/// What a restore of this point alone would miss, as far as names, sizes and earlier verifications tell.
pub(crate) fn missing(store: &Store, at: At<'_>, manifest: &Manifest) -> Option<String> {
    let directory = store.directory(at, &manifest.point);
    for disk in &manifest.disks {
        let length = |name: &str| fs::metadata(directory.join(name)).map(|m| m.len()).ok();
        match length(&disk.file) {
            None => return Some(format!("point {}: {} is not there", manifest.point, disk.file)),
            Some(found) if found != disk.file_bytes => {
                let name = &disk.file;
                return Some(format!("point {}: {name} has {found} of {} bytes", manifest.point, disk.file_bytes));
            }
            Some(_) => {}
        }
        if length(&disk.index_file).is_none() {
            return Some(format!("point {}: {} is not there", manifest.point, disk.index_file));
        }
        if let Some(problem) = disk.template.as_deref().and_then(|key| without_template(store, at, key)) {
            return Some(format!("point {}: {problem}", manifest.point));
        }
    }
    mark::problem(store, at, &manifest.point)
}

/// What is wrong with a template, as far as names, sizes and earlier verifications tell.
pub(crate) fn without_template(store: &Store, at: At<'_>, key: &str) -> Option<String> {
    let at = At { guest: TEMPLATES, ..at };
    let problem = match store.manifest(at, key) {
        Err(error) if error.kind == ErrorKind::NotFound => return Some(format!("the template {key} is not there")),
        Err(error) => error.message,
        Ok(manifest) if manifest.disks.iter().any(|disk| disk.template.is_some()) => "it lies upon another".to_owned(),
        Ok(manifest) => missing(store, at, &manifest)?,
    };
    Some(format!("the template {key}: {problem}"))
}

/// What the files of a directory take together, in bytes.
pub(crate) fn stored(directory: &Path) -> u64 {
    let lengths = |entries: fs::ReadDir| entries.flatten().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum();
    fs::read_dir(directory).map_or(0, lengths)
}

/// Lists the points of a selection.
///
/// # Errors
/// There is no repository, it is of a newer version, or it cannot be read. A damaged point is a line with a `problem`.
pub fn list(request: &Selection) -> Result<Listed> {
    let store = Store::open(&request.repository)?;
    let mut listed = Listed { points: Vec::new(), templates: Vec::new() };
    for (cluster, guest) in store.guests(request.cluster.as_deref(), request.guest.as_deref())? {
        let at = At { cluster: &cluster, guest: &guest };
        let before = store.print(at);
        let mut found = Points::read(&store, at)?.summaries();
        // A merge or a prune may have been at work.
        if found.iter().any(|point| point.problem.is_some()) && store.print(at) != before {
            found = Points::read(&store, at)?.summaries();
        }
        match guest == TEMPLATES {
            true => listed.templates.extend(found),
            false => listed.points.extend(found),
        }
    }
    Ok(listed)
}

/// Shows one point.
///
/// # Errors
/// It is not there, or it or its chain is damaged.
pub fn show(request: &PointPath) -> Result<Shown> {
    for (what, name) in [("cluster", &request.cluster), ("guest", &request.guest), ("point", &request.point)] {
        check_name(what, name)?;
    }
    let store = Store::open(&request.repository)?;
    let at = At { cluster: &request.cluster, guest: &request.guest };
    store.settled(at, || shown(&store, at, request))
}

fn shown(store: &Store, at: At<'_>, request: &PointPath) -> Result<Shown> {
    let manifest = store.manifest(at, &request.point)?;
    let points = Points::read(store, at)?;
    let directory = store.directory(at, &request.point);
    let definition = read_small(&directory.join(DEFINITION))?;
    let definition = serde_json::from_slice(&definition)
        .map_err(|error| Error::damaged(format!("{DEFINITION}: {error}")).at(&request.point))?;
    let chain = points.chain(&request.point).map(|chain| chain.iter().map(|m| m.point.clone()).collect());
    let chain = chain.unwrap_or_else(|_| vec![request.point.clone()]);
    Ok(Shown { point: points.summary(&request.point)?, manifest, definition, chain, directory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_point_is_its_time() {
        assert_eq!(taken_at("20261128T013000Z").unwrap().to_string(), "2026-11-28T01:30:00");
        assert!(taken_at("20261128T013000Z-2").is_some());
        for wrong in
            ["", "20261328T013000Z", "20261128T013000", "20261128T013000Zx", "20261128T013000Z-", "+0261128T013000Z"]
        {
            assert!(taken_at(wrong).is_none() || wrong.ends_with('-'), "{wrong}");
        }
    }
}
