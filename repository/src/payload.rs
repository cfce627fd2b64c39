//! Writes a data file and its index, frame by frame in order, while other threads compress.

use crate::error::{Error, ErrorKind, Named, Result};
use crate::files::create_new;
use crate::frame::{Frame, Packed, Pool};
use crate::index::{COLUMNS, TITLE, hex};
use crate::manifest::Disk;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) file_bytes: u64,
    pub(crate) sha256: String,
    pub(crate) index_sha256: String,
    pub(crate) frames: u64,
    pub(crate) stream_bytes: u64,
    pub(crate) data_bytes: u64,
    pub(crate) zero_bytes: u64,
}

impl Written {
    /// The description of a disk, with the figures of what was written.
    pub(crate) fn describe(&self, disk: Disk) -> Disk {
        Disk {
            file_bytes: self.file_bytes,
            sha256: self.sha256.clone(),
            index_sha256: self.index_sha256.clone(),
            frames: self.frames,
            stream_bytes: self.stream_bytes,
            data_bytes: self.data_bytes,
            zero_bytes: self.zero_bytes,
            ..disk
        }
    }
}

enum Slot {
    Pending(Receiver<io::Result<Packed>>),
    Ready(Packed),
}

/// A data file that is being written.
pub(crate) struct Payload {
    pool: Arc<Pool>,
    order: Option<SyncSender<Slot>>,
    thread: Option<JoinHandle<Result<Written>>>,
    stored: Arc<AtomicU64>,
}

impl Payload {
    /// Begins a data file and its index. At most `ahead` frames are on their way at a time, which bounds the memory.
    pub(crate) fn create(pool: &Arc<Pool>, file: &Path, index: &Path, ahead: usize) -> Result<Self> {
        let (order, slots) = mpsc::sync_channel(ahead);
        let stored = Arc::new(AtomicU64::new(0));
        let (data_path, index_path, counter) = (file.to_owned(), index.to_owned(), Arc::clone(&stored));
        let data = create_new(file)?;
        let text = create_new(index)?;
        let writer = Writer { data, data_path, text: BufWriter::new(text), index_path, counter };
        let thread = thread::spawn(move || writer.run(&slots));
        Ok(Self { pool: Arc::clone(pool), order: Some(order), thread: Some(thread), stored })
    }

    /// Adds a frame, to be compressed.
    pub(crate) fn push(&mut self, frame: Frame) -> Result<()> {
        let pending = self.pool.compress(frame)?;
        self.put(Slot::Pending(pending))
    }

    /// Adds a frame that is compressed already.
    pub(crate) fn pass(&mut self, packed: Packed) -> Result<()> {
        self.put(Slot::Ready(packed))
    }

    /// How many bytes are in the file by now.
    pub(crate) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Waits until everything is written and synced.
    pub(crate) fn finish(mut self) -> Result<Written> {
        self.order = None;
        self.join()
    }

    fn put(&mut self, slot: Slot) -> Result<()> {
        if self.order.as_ref().is_some_and(|order| order.send(slot).is_ok()) {
            return Ok(());
        }
        // The thread ends early only with the error that says why.
        self.join().and_then(|_| Err(Error::new(ErrorKind::Io, "the thread that writes has ended")))
    }

    fn join(&mut self) -> Result<Written> {
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(result)) => result,
            _ => Err(Error::new(ErrorKind::Io, "the thread that writes has ended")),
        }
    }
}

struct Writer {
    data: File,
    data_path: PathBuf,
    text: BufWriter<File>,
    index_path: PathBuf,
    counter: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, slots: &Receiver<Slot>) -> Result<Written> {
        let (mut digest, mut index_digest) = (Sha256::new(), Sha256::new());
        let mut written = Written::default();
        let title = format!("{TITLE}\n{COLUMNS}\n");
        self.write_index(&title, &mut index_digest)?;
        for slot in slots {
            let packed = match slot {
                Slot::Ready(packed) => packed,
                Slot::Pending(result) => result
                    .recv()
                    .map_err(|_| Error::new(ErrorKind::Io, "the threads that compress have ended"))?
                    .map_err(|error| Error::new(ErrorKind::Io, format!("compressing: {error}")))?,
            };
            let mut entry = packed.entry;
            entry.file_offset = written.file_bytes;
            self.data.write_all(&packed.bytes).named(&self.data_path)?;
            digest.update(&packed.bytes);
            self.write_index(&format!("{}\n", entry.line()), &mut index_digest)?;
            written.file_bytes += entry.file_bytes;
            written.frames += 1;
            written.stream_bytes += entry.stream_bytes;
            written.data_bytes += entry.data_bytes;
            written.zero_bytes += entry.zero_bytes;
            self.counter.store(written.file_bytes, Ordering::Relaxed);
        }
        self.text.flush().named(&self.index_path)?;
        self.text.get_ref().sync_all().named(&self.index_path)?;
        self.data.sync_all().named(&self.data_path)?;
        written.sha256 = hex(&digest.finalize());
        written.index_sha256 = hex(&index_digest.finalize());
        Ok(written)
    }

    fn write_index(&mut self, text: &str, digest: &mut Sha256) -> Result<()> {
        digest.update(text.as_bytes());
        self.text.write_all(text.as_bytes()).named(&self.index_path)
    }
}
