//! Stores a new point: every disk's stream is read, checked, cut into frames and compressed; then the point gets its name.

use crate::chunks::Chunks;
use crate::diff::{Head, Record, Rules, read_banner, read_error, read_record};
use crate::error::{Error, ErrorKind, Named, Result};
use crate::files::create_directory;
use crate::frame::{Framer, Pool};
use crate::list::{Points, taken_at, without_template};
use crate::lock::Lock;
use crate::manifest::{Disk, FORMAT, Manifest};
use crate::payload::{Payload, Written};
use crate::reader::Running;
use crate::request::{CHAIN_LIMIT, Progress, Receive, ReceiveDisk, Received, TEMPLATES};
use crate::store::write_small_files;
use crate::store::{
    At, PARTIAL, Store, WRITTEN_BY, check_joint, check_name, data_file, index_file, json, sync_directory,
};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How many disks are read at a time unless the request says otherwise.
const PARALLEL: usize = 4;
/// How many frames of a disk are on their way: 5 x (4 MiB + as much compressed) stay well below 64 MiB.
const AHEAD: usize = 4;
/// Small records come from here; large data are read past it.
const BUFFER: usize = 256 << 10;

/// Is told how far it is; its error ends the request.
pub type Report<'a> = &'a (dyn Fn(Progress) -> Result<()> + Sync);

/// Stores a point. `payload` holds the streams where the request names no reader.
///
/// # Errors
/// Whatever they are, the repository is as before but for a directory `.partial-…`, which goes with the next run if not with this.
pub fn receive(request: &Receive, payload: &mut dyn BufRead, report: Report<'_>) -> Result<Received> {
    check(request)?;
    let store = Store::open_or_create(&request.repository)?;
    let at = At { cluster: &request.cluster, guest: &request.guest };
    let guest = store.create_guest(at)?;
    let lock = Lock::take(&guest, request.owner.as_deref().unwrap_or("a backup run"))?;
    let swept = store.sweep(at, &lock)?;
    let directory = store.directory(at, &request.point);
    if directory.exists() {
        let message = format!("guest {}: point {} is there already", request.guest, request.point);
        return Err(Error::new(ErrorKind::Exists, message).at(&request.point));
    }
    check_parents(request, &store, at)?;
    let partial = guest.join(format!("{PARTIAL}{}", request.point));
    create_directory(&partial)?;
    let stored = write(request, payload, &partial, report).and_then(|manifest| {
        lock.check()?;
        fs::rename(&partial, &directory).named(&directory)?;
        sync_directory(&guest)?;
        Ok(manifest)
    });
    let manifest = stored.map_err(|error| {
        // What cannot be removed now goes with the next run.
        let _ = fs::remove_dir_all(&partial);
        error.at(&request.point)
    })?;
    let point = Points::read(&store, at)?.summary(&request.point)?;
    Ok(Received { point, manifest, directory, swept })
}

fn check(request: &Receive) -> Result<()> {
    check_name("cluster", &request.cluster)?;
    check_name("guest", &request.guest)?;
    check_name("point", &request.point)?;
    let refuse = |message: String| Err(Error::new(ErrorKind::Request, message));
    if request.guest != TEMPLATES && taken_at(&request.point).is_none() {
        return refuse(format!("point {} does not begin with a time such as 20261128T013000Z", request.point));
    }
    if request.disks.is_empty() {
        return refuse("there is no disk to be stored".to_owned());
    }
    for (n, disk) in request.disks.iter().enumerate() {
        if request.disks[..n].iter().any(|d| d.index == disk.index) {
            return refuse(format!("disk {} is there twice", disk.index));
        }
        let names = [Some(&disk.image), Some(&disk.to_snapshot), disk.from_snapshot.as_ref()];
        if let Some(name) = names
            .into_iter()
            .flatten()
            .find(|n| n.is_empty() || n.contains(|c: char| c.is_whitespace() || c.is_control()))
        {
            return refuse(format!("disk {}: the name {name:?} is empty or has white space", disk.index));
        }
        if disk.from_snapshot.is_some() && (request.parent.is_none() || disk.template.is_some()) {
            return refuse(format!("disk {}: a difference needs a parent, and only a full has a template", disk.index));
        }
    }
    let reader = request.reader.as_ref();
    if reader.is_some_and(|r| r.argv.is_empty()) {
        return refuse("the reader has no program".to_owned());
    }
    Ok(())
}

/// What the point stands on must be there, whole as far as names tell, and end where it begins.
fn check_parents(request: &Receive, store: &Store, at: At<'_>) -> Result<()> {
    for key in request.disks.iter().filter_map(|d| d.template.as_deref()) {
        check_name("template", key)?;
        store.manifest(At { guest: TEMPLATES, ..at }, key)?;
        if let Some(problem) = without_template(store, at, key) {
            return Err(Error::damaged(problem));
        }
    }
    let Some(parent) = &request.parent else { return Ok(()) };
    check_name("parent", parent)?;
    if taken_at(&request.point) < taken_at(parent) {
        let message = format!("point {} is older than {parent}, which it shall be a difference to", request.point);
        return Err(Error::new(ErrorKind::Request, message));
    }
    store.manifest(at, parent)?;
    let points = Points::read(store, at)?;
    if let Some(problem) = points.summary(parent)?.problem {
        return Err(Error::damaged(format!("nothing can be stored upon point {parent}: {problem}")).at(parent));
    }
    let chain = points.chain(parent)?;
    if chain.len() >= CHAIN_LIMIT {
        let message = format!(
            "point {parent} stands on a chain of {} points, and {CHAIN_LIMIT} are the most: the next point must be a full",
            chain.len()
        );
        return Err(Error::new(ErrorKind::ChainTooLong, message).at(parent));
    }
    let child = manifest(request, Vec::new());
    let disks = request.disks.iter().map(|d| describe(d, &Written::default())).collect();
    match chain.last() {
        Some(parent) => check_joint(parent, &Manifest { disks, ..child }),
        None => Ok(()),
    }
}

fn manifest(request: &Receive, disks: Vec<Disk>) -> Manifest {
    Manifest {
        format: FORMAT,
        cluster: request.cluster.clone(),
        guest: request.guest.clone(),
        name: request.name.clone(),
        point: request.point.clone(),
        parent_point: request.parent.clone(),
        consistency: request.consistency,
        disks,
        folded: Vec::new(),
        written_by: WRITTEN_BY.to_owned(),
    }
}

fn describe(disk: &ReceiveDisk, written: &Written) -> Disk {
    written.describe(Disk {
        index: disk.index,
        image: disk.image.clone(),
        size: disk.size,
        from_snapshot: disk.from_snapshot.clone(),
        to_snapshot: disk.to_snapshot.clone(),
        template: disk.template.clone(),
        file: data_file(disk.index),
        index_file: index_file(disk.index),
        ..Disk::default()
    })
}

fn write(request: &Receive, payload: &mut dyn BufRead, partial: &Path, report: Report<'_>) -> Result<Manifest> {
    let transfer = Transfer {
        pool: Arc::new(Pool::of_this_machine()),
        partial,
        report,
        point: &request.point,
        stopped: AtomicBool::new(false),
    };
    let mut disks = match &request.reader {
        None => {
            let mut disks = Vec::new();
            for disk in &request.disks {
                let mut chunks = Chunks::new(payload);
                let written = transfer.disk(disk, &mut chunks)?;
                chunks.finish()?;
                disks.push(describe(disk, &written));
            }
            disks
        }
        Some(reader) => {
            // The largest first: it would be the last one to end.
            let mut order: Vec<&ReceiveDisk> = request.disks.iter().collect();
            order.sort_by_key(|disk| disk.size);
            let queue = Mutex::new(VecDeque::from(order));
            let done = Mutex::new(Vec::new());
            let failure = Mutex::new(None);
            let lock = |e: PoisonError<_>| PoisonError::into_inner(e);
            std::thread::scope(|scope| {
                for _ in 0..request.parallel.unwrap_or(PARALLEL).clamp(1, request.disks.len()) {
                    scope.spawn(|| {
                        while !transfer.stopped.load(Ordering::Relaxed) {
                            let Some(disk) = queue.lock().unwrap_or_else(lock).pop_back() else { return };
                            let result = Running::start(reader, disk).and_then(|mut running| {
                                let written =
                                    transfer.disk(disk, &mut BufReader::with_capacity(BUFFER, running.output()?));
                                running.finish(written)
                            });
                            match result {
                                Ok(written) => {
                                    done.lock().unwrap_or_else(PoisonError::into_inner).push(describe(disk, &written));
                                }
                                Err(error) => {
                                    transfer.stopped.store(true, Ordering::Relaxed);
                                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                                }
                            }
                        }
                    });
                }
            });
            if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
                return Err(error);
            }
            done.into_inner().unwrap_or_else(PoisonError::into_inner)
        }
    };
    disks.sort_by_key(|disk| disk.index);
    let manifest = manifest(request, disks);
    write_small_files(partial, &manifest, &json(&request.definition)?)?;
    Ok(manifest)
}

/// What the disks of a point share while they are read.
struct Transfer<'a> {
    pool: Arc<Pool>,
    partial: &'a Path,
    report: Report<'a>,
    point: &'a str,
    stopped: AtomicBool,
}

impl Transfer<'_> {
    /// Reads a stream to its end and stores it.
    fn disk(&self, disk: &ReceiveDisk, input: &mut impl Read) -> Result<Written> {
        let named = |error: Error| Error { message: format!("{}: {}", disk.image, error.message), ..error };
        let file = self.partial.join(data_file(disk.index));
        let payload = Payload::create(&self.pool, &file, &self.partial.join(index_file(disk.index)), AHEAD)?;
        let payload = RefCell::new(payload);
        self.copy(disk, input, &payload).map_err(named)?;
        payload.into_inner().finish()
    }

    fn copy(&self, disk: &ReceiveDisk, input: &mut impl Read, payload: &RefCell<Payload>) -> Result<()> {
        let mut bytes = 0;
        let sink = |frame: crate::frame::Frame| {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Io, "another disk of the guest failed"));
            }
            bytes += frame.bytes.len() as u64;
            let position = frame.entry.end;
            payload.borrow_mut().push(frame)?;
            (self.report)(Progress {
                guest: None,
                point: Some(self.point.to_owned()),
                disk: Some(disk.index),
                bytes,
                stored: payload.borrow().stored(),
                position,
                of: disk.size,
            })
        };
        read_banner(input)?;
        let mut rules = Rules::default();
        let mut framer = Framer::new(sink);
        let mut begun = false;
        loop {
            let record = read_record(input)?;
            rules.accept(&record)?;
            if matches!(record, Record::From(_) | Record::To(_) | Record::Size(_)) {
                continue;
            }
            if !std::mem::replace(&mut begun, true) {
                check_head(disk, &rules.head)?;
                framer.head(&rules.head)?;
            }
            match record {
                Record::Data(extent) => {
                    framer.data(extent, |buffer| input.read_exact(buffer).map_err(|error| read_error(&error)))?;
                }
                Record::Zero(extent) if extent.length > 0 => framer.zero(extent)?,
                Record::End => {
                    framer.end()?;
                    break;
                }
                _ => {}
            }
        }
        let mut rest = [0];
        match input.read(&mut rest) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Error::stream("the diff stream goes on after its end record")),
            Err(error) => Err(read_error(&error)),
        }
    }
}

/// What the stream says of itself must be what was asked for.
fn check_head(disk: &ReceiveDisk, head: &Head) -> Result<()> {
    let wanted = Head { from: disk.from_snapshot.clone(), to: Some(disk.to_snapshot.clone()), size: Some(disk.size) };
    match *head == wanted {
        true => Ok(()),
        false => {
            let show = |head: &Head| {
                let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "nothing".to_owned());
                let size = head.size.map_or("unknown".to_owned(), |size| size.to_string());
                format!("from {} to {}, size {size}", name(&head.from), name(&head.to))
            };
            Err(Error::stream(format!("the diff stream runs {}; asked was {}", show(head), show(&wanted))))
        }
    }
}
