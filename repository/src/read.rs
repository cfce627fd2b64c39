//! Writes a disk's state at a point as one diff stream, and reads it into a plain file.

use crate::diff::{Extent, Head, Record, write_record};
use crate::error::{Error, ErrorKind, Named, Result};
use crate::files::FILE_MODE;
use crate::index::hex;
use crate::overlay::{Merged, Overlay};
use crate::receive::Report;
use crate::request::{PointPath, Progress, ReadDisk, ReadDone};
use crate::store::{At, Store, check_name};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

/// What is handed on at a time.
const BUFFER: usize = 128 << 10;

/// Writes a disk at a point to `output`, or to the file or FIFO that the request names.
///
/// # Errors
/// The point is not there, it or what it stands on is damaged, or the output is gone. The stream then has no end record.
pub fn read_disk(request: &ReadDisk, output: &mut dyn Write, report: Report<'_>) -> Result<ReadDone> {
    let PointPath { repository, cluster, guest, point } = &request.at;
    for (what, name) in [("cluster", cluster), ("guest", guest), ("point", point)] {
        check_name(what, name)?;
    }
    let store = Store::open(repository)?;
    let at = At { cluster, guest };
    // Once everything is open, no merge and no prune takes it away.
    let (overlay, snapshot) = store.settled(at, || {
        let chain = store.chain(at, point)?;
        let disk = chain.last().and_then(|m| m.disks.iter().find(|d| d.index == request.disk));
        let disk =
            disk.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("point {point} has no disk {}", request.disk)))?;
        let overlay = Overlay::restore(&store, at, &chain, request.disk).map_err(|error| error.at(point))?;
        Ok((overlay, disk.to_snapshot.clone()))
    })?;
    let to = (!request.without_snapshot).then_some(snapshot);
    let head = Head { from: None, to, size: Some(overlay.size()) };
    let mut progress = Progress { point: Some(point.clone()), disk: Some(request.disk), ..Progress::default() };
    let result = match &request.to {
        None => stream(overlay, &head, output, &mut progress, report),
        Some(path) => {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path).named(path)?;
            stream(overlay, &head, &mut file, &mut progress, report)
        }
    };
    result.map_err(|error| error.at(point))
}

struct Output<'a> {
    output: &'a mut dyn Write,
    digest: blake3::Hasher,
    bytes: u64,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.output
            .write_all(bytes)
            .map_err(|error| Error::new(ErrorKind::Io, format!("the stream cannot be written: {error}")))
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        let mut bytes = Vec::new();
        write_record(record, &mut bytes);
        self.write(&bytes)
    }
}

fn stream(
    mut overlay: Overlay,
    head: &Head,
    output: &mut dyn Write,
    progress: &mut Progress,
    report: Report<'_>,
) -> Result<ReadDone> {
    let mut output = Output { output, digest: blake3::Hasher::new(), bytes: 0 };
    output.write(&head.bytes())?;
    let mut buffer = vec![0; BUFFER];
    progress.of = overlay.size();
    while let Some(merged) = overlay.next()? {
        let end = match merged {
            Merged::Data(extent) => {
                output.record(&Record::Data(extent))?;
                let mut left = extent.length;
                while left > 0 {
                    let count = BUFFER.min(usize::try_from(left).unwrap_or(BUFFER));
                    overlay.read(&mut buffer[..count])?;
                    output.write(&buffer[..count])?;
                    left -= count as u64;
                }
                extent.end()
            }
            Merged::Zero(extent) => {
                output.record(&Record::Zero(extent))?;
                Extent::end(extent)
            }
            Merged::Frame(_) => return Err(Error::damaged("a whole frame cannot be read")),
        };
        (progress.position, progress.bytes) = (end, output.bytes);
        report(progress.clone())?;
    }
    output.record(&Record::End)?;
    output
        .output
        .flush()
        .map_err(|error| Error::new(ErrorKind::Io, format!("the stream cannot be written: {error}")))?;
    Ok(ReadDone { size: overlay.size(), bytes: output.bytes, blake3: hex(output.digest.finalize().as_bytes()) })
}
