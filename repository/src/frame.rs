//! A stream cut into frames, and the threads that compress them.

use crate::diff::{EXTENT_HEADER, Extent, FRAME_LIMIT, Head, Record, SPLIT, write_record};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{Entry, Part};
use std::io;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// The level that keeps up with a disk.
const LEVEL: i32 = 1;

/// A part of a stream that ends at the end of a record.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    /// What the index says about it, but for its place in the file and its digest.
    pub(crate) entry: Entry,
}

/// A compressed frame, its entry complete but for its place in the file.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) entry: Entry,
}

/// Collects records into frames and hands each to `sink`.
pub(crate) struct Framer<S> {
    frame: Frame,
    sink: S,
}

impl<S: FnMut(Frame) -> Result<()>> Framer<S> {
    /// Nothing is collected yet.
    pub(crate) fn new(sink: S) -> Self {
        Self { frame: empty(), sink }
    }

    /// Hands out the frame of the head; extents follow.
    pub(crate) fn head(&mut self, head: &Head) -> Result<()> {
        (self.sink)(Frame { bytes: head.bytes(), entry: Entry::new(Part::Head) })
    }

    /// Hands out what has been collected.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.frame.bytes.is_empty() {
            return Ok(());
        }
        (self.sink)(std::mem::replace(&mut self.frame, empty()))
    }

    /// Adds an extent of zeros.
    pub(crate) fn zero(&mut self, extent: Extent) -> Result<()> {
        self.make_room(EXTENT_HEADER)?;
        self.begin(extent, &Record::Zero(extent));
        self.frame.entry.zero_bytes += extent.length;
        Ok(())
    }

    /// Adds an extent of data, which `read` fills in from front to back.
    pub(crate) fn data(&mut self, extent: Extent, mut read: impl FnMut(&mut [u8]) -> Result<()>) -> Result<()> {
        let mut offset = extent.offset;
        while offset < extent.end() {
            let end = extent.end().min((offset / SPLIT + 1) * SPLIT);
            let part = Extent { offset, length: end - offset };
            let length = usize::try_from(part.length).unwrap_or(usize::MAX);
            self.make_room(EXTENT_HEADER + length)?;
            self.begin(part, &Record::Data(part));
            let at = self.frame.bytes.len();
            self.frame.bytes.resize(at + length, 0);
            read(&mut self.frame.bytes[at..])?;
            self.frame.entry.data_bytes += part.length;
            offset = end;
        }
        Ok(())
    }

    /// Hands out the rest and the frame of the end.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.flush()?;
        let mut bytes = Vec::new();
        write_record(&Record::End, &mut bytes);
        (self.sink)(Frame { bytes, entry: Entry::new(Part::End) })
    }

    fn make_room(&mut self, length: usize) -> Result<()> {
        match self.frame.bytes.len() + length > FRAME_LIMIT {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn begin(&mut self, extent: Extent, record: &Record) {
        let frame = &mut self.frame;
        if frame.bytes.is_empty() {
            frame.entry.first = extent.offset;
        }
        frame.entry.end = extent.end();
        write_record(record, &mut frame.bytes);
    }
}

fn empty() -> Frame {
    // The whole at once: what grows by doubling takes up to twice as much.
    Frame { bytes: Vec::with_capacity(FRAME_LIMIT), entry: Entry::new(Part::Data) }
}

struct Job {
    frame: Frame,
    reply: SyncSender<io::Result<Packed>>,
}

/// Threads that compress frames for all disks.
pub(crate) struct Pool {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// As many threads as given, at least one.
    pub(crate) fn new(threads: usize) -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let work = |queue: Arc<Mutex<Receiver<Job>>>| {
            move || {
                let mut compressor = compressor();
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(Job { frame, reply }) = job else { return };
                    let packed = match &mut compressor {
                        Ok(compressor) => pack(compressor, &frame),
                        Err(error) => Err(io::Error::other(error.to_string())),
                    };
                    // The other end is gone when its disk has failed.
                    let _ = reply.send(packed);
                }
            }
        };
        let threads = (0..threads.max(1)).map(|_| thread::spawn(work(Arc::clone(&queue)))).collect();
        Self { jobs: Some(jobs), threads }
    }

    /// As many threads as the machine has processors.
    pub(crate) fn of_this_machine() -> Self {
        Self::new(thread::available_parallelism().map_or(2, usize::from))
    }

    /// Begins to compress a frame.
    pub(crate) fn compress(&self, frame: Frame) -> Result<Receiver<io::Result<Packed>>> {
        let (reply, result) = mpsc::sync_channel(1);
        match self.jobs.as_ref().is_some_and(|jobs| jobs.send(Job { frame, reply }).is_ok()) {
            true => Ok(result),
            false => Err(Error::new(ErrorKind::Io, "the threads that compress have ended")),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn compressor() -> io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    Ok(compressor)
}

fn pack(compressor: &mut zstd::bulk::Compressor<'static>, frame: &Frame) -> io::Result<Packed> {
    let bytes = compressor.compress(&frame.bytes)?;
    let mut entry = frame.entry.clone();
    entry.stream_bytes = frame.bytes.len() as u64;
    entry.file_bytes = bytes.len() as u64;
    entry.blake3 = *blake3::hash(&bytes).as_bytes();
    Ok(Packed { bytes, entry })
}
