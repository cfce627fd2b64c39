//! The layers of a disk as one stream: at every offset the newest layer that has something to say.

use crate::diff::Extent;
use crate::error::{Error, Result};
use crate::frame::Packed;
use crate::layer::Layer;
use crate::manifest::{Disk, Manifest};
use crate::request::TEMPLATES;
use crate::store::{At, Store};

/// A part of the merged stream.
#[derive(Debug)]
pub(crate) enum Merged {
    /// Data, to be read with `Overlay::read`.
    Data(Extent),
    /// Zeros.
    Zero(Extent),
    /// A whole frame of one layer that nothing else touches.
    Frame(Packed),
}

/// A disk of a point that is read, with the point that it is of.
struct Part<'a> {
    at: At<'a>,
    point: &'a str,
    disk: &'a Disk,
}

/// Layers that lie one upon another.
pub(crate) struct Overlay {
    /// The newest first.
    layers: Vec<Layer>,
    /// What was handed out ends here.
    offset: u64,
    /// The image's size in the end.
    size: u64,
    /// Below the oldest layer there is nothing: zeros need not be said.
    on_nothing: bool,
    whole_frames: bool,
    reading: Option<usize>,
}

impl Overlay {
    /// Everything of a disk at the last point of a chain (oldest first): its template, its full and its differences.
    pub(crate) fn restore(store: &Store, at: At<'_>, chain: &[Manifest], index: u32) -> Result<Self> {
        let parts = parts(at, chain, index)?;
        let template = match parts.first().and_then(|part| part.disk.template.as_deref()) {
            None => None,
            Some(key) => Some(store.manifest(At { guest: TEMPLATES, ..at }, key)?),
        };
        let mut all = Vec::new();
        if let Some(manifest) = &template {
            let disk = manifest.disks.first().ok_or_else(|| Error::damaged("the template has no disk"))?;
            all.push(Part { at: At { guest: TEMPLATES, ..at }, point: &manifest.point, disk });
        }
        all.extend(parts);
        Self::of(store, &all, 0, true)
    }

    /// What happened to a disk after point `onto`, or since its full, up to the last point of a chain. `below` is the largest
    /// size that the disk had before.
    pub(crate) fn difference(
        store: &Store,
        at: At<'_>,
        chain: &[Manifest],
        onto: Option<&str>,
        index: u32,
    ) -> Result<(Self, Disk)> {
        let parts = parts(at, chain, index)?;
        let first = parts.first().ok_or_else(|| Error::damaged("there is no such disk"))?;
        let skipped = onto.and_then(|onto| parts.iter().position(|part| part.point == onto)).map_or(0, |n| n + 1);
        let mut below = parts[..skipped].iter().map(|part| part.disk.size).max().unwrap_or(0);
        if let Some(key) = &first.disk.template {
            let template = store.manifest(At { guest: TEMPLATES, ..at }, key)?;
            below = below.max(template.disks.first().map_or(0, |disk| disk.size));
        }
        let taken = &parts[skipped..];
        let (Some(oldest), Some(newest)) = (taken.first(), taken.last()) else {
            return Err(Error::damaged("there is nothing to be merged"));
        };
        let (from_snapshot, template) = (oldest.disk.from_snapshot.clone(), oldest.disk.template.clone());
        let on_nothing = from_snapshot.is_none() && template.is_none();
        let mut overlay = Self::of(store, taken, below, on_nothing)?;
        overlay.whole_frames = true;
        Ok((overlay, Disk { from_snapshot, template, ..newest.disk.clone() }))
    }

    fn of(store: &Store, parts: &[Part<'_>], mut below: u64, on_nothing: bool) -> Result<Self> {
        raise_descriptors(parts.len());
        let mut layers = Vec::new();
        for part in parts {
            let open = || -> Result<Layer> {
                let mut layer = Layer::open(&store.directory(part.at, part.point), part.disk)?;
                layer.hide_below(part.disk.size, below);
                Ok(layer)
            };
            layers.push(open().map_err(|error| error.at(part.point))?);
            below = below.max(part.disk.size);
        }
        layers.reverse();
        let size = parts.last().map_or(0, |part| part.disk.size);
        Ok(Self { layers, offset: 0, size, on_nothing, whole_frames: false, reading: None })
    }

    /// The image's size in the end.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The next part. The data of the one before, as far as they were not read, are left out.
    pub(crate) fn next(&mut self) -> Result<Option<Merged>> {
        loop {
            self.reading = None;
            for layer in &mut self.layers {
                layer.advance(self.offset)?;
            }
            let starts: Vec<Option<u64>> = self.layers.iter().map(Layer::start).collect();
            let Some(offset) = starts.iter().flatten().min().copied().filter(|offset| *offset < self.size) else {
                return Ok(None);
            };
            let newest = starts.iter().position(|start| *start == Some(offset)).unwrap_or_default();
            let newer = starts[..newest].iter().flatten().min().copied().unwrap_or(self.size).min(self.size);
            let older = starts[newest + 1..].iter().flatten().min().copied();
            let layer = &mut self.layers[newest];
            let whole = self.whole_frames
                && layer.unopened().is_some_and(|frame| {
                    frame.end <= newer && (frame.is_dense() || older.is_none_or(|older| older >= frame.end))
                });
            if whole && let Some(packed) = layer.take_frame()? {
                self.offset = packed.entry.end;
                return Ok(Some(Merged::Frame(packed)));
            }
            let Some(piece) = layer.piece()? else { continue };
            let end = piece.extent.end().min(newer);
            self.offset = end;
            let extent = Extent { offset, length: end - offset };
            if piece.data {
                self.reading = Some(newest);
                return Ok(Some(Merged::Data(extent)));
            }
            if !self.on_nothing {
                return Ok(Some(Merged::Zero(extent)));
            }
        }
    }

    /// Reads data of the present part, from front to back.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        match self.reading.and_then(|n| self.layers.get_mut(n)) {
            Some(layer) => layer.read(buffer),
            None => Err(Error::damaged("there are no data to be read")),
        }
    }
}

/// A layer has its data file and its index open; beside those of a chain, these are enough.
const OTHER_DESCRIPTORS: u64 = 128;
/// How many disks of a chain may be open at a time.
const DISKS_AT_A_TIME: u64 = 8;

/// Lets the process open as many files as a long chain needs, as far as it may.
fn raise_descriptors(layers: usize) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let needed = (layers as u64).saturating_mul(2 * DISKS_AT_A_TIME).saturating_add(OTHER_DESCRIPTORS);
    if let Ok((now, most)) = getrlimit(Resource::RLIMIT_NOFILE)
        && now < needed.min(most)
    {
        // Where it is refused, opening says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, needed.min(most), most);
    }
}

/// The points of a chain that a disk is read from: from its newest full on.
fn parts<'a>(at: At<'a>, chain: &'a [Manifest], index: u32) -> Result<Vec<Part<'a>>> {
    let mut parts = Vec::new();
    for manifest in chain.iter().rev() {
        let disk = manifest.disks.iter().find(|disk| disk.index == index);
        let disk = disk.ok_or_else(|| Error::damaged(format!("point {} has no disk {index}", manifest.point)))?;
        parts.push(Part { at, point: &manifest.point, disk });
        if disk.from_snapshot.is_none() {
            parts.reverse();
            return Ok(parts);
        }
    }
    Err(Error::damaged(format!("disk {index} has no full in its chain")))
}
