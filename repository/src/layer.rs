//! One data file, read extent by extent in order; every frame is compared with its digest before anything of it is believed.

use crate::diff::{Extent, Head, Record, Rules, read_banner, read_record};
use crate::error::{Error, Named, Result};
use crate::frame::Packed;
use crate::index::{Entry, IndexReader, Part};
use crate::manifest::Disk;
use crate::store::digest_file;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is read from a data file at a time. Two of these and a window of 512 KiB are what a layer takes.
const BUFFER: usize = 64 << 10;
/// No frame needs a window beyond its own length.
const WINDOW_LOG: u32 = 22;

/// A part of a file, read from front to back without moving the file's own position.
struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

type Decoder = zstd::stream::read::Decoder<'static, BufReader<Section>>;

/// An extent of a layer, and whether data for it follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) extent: Extent,
    pub(crate) data: bool,
}

/// What a layer has next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ahead {
    /// A frame that has not been opened.
    Frame(Entry),
    /// What is left of an extent.
    Piece(Piece),
    /// Nothing.
    Nothing,
}

/// A data file that is being read.
pub(crate) struct Layer {
    path: PathBuf,
    file: Arc<File>,
    index: IndexReader<BufReader<File>>,
    rules: Rules,
    frame: Option<(Decoder, Entry)>,
    ahead: Ahead,
    /// What the image lost when it shrank: hides what is below. Comes after everything else.
    lost: Option<Extent>,
    buffer: Vec<u8>,
}

impl Layer {
    /// Opens a disk's data file. Its index must be what the manifest says.
    pub(crate) fn open(directory: &Path, disk: &Disk) -> Result<Self> {
        let index_path = directory.join(&disk.index_file);
        if digest_file(&index_path)? != disk.index_sha256 {
            return Err(Error::damaged(format!("{}: is not what was written", index_path.display())));
        }
        let path = directory.join(&disk.file);
        let file = File::open(&path).named(&path)?;
        let length = file.metadata().named(&path)?.len();
        if length != disk.file_bytes {
            return Err(Error::damaged(format!("{}: has {length} of {} bytes", path.display(), disk.file_bytes)));
        }
        let text = BufReader::with_capacity(16 << 10, File::open(&index_path).named(&index_path)?);
        let index = IndexReader::new(text).map_err(|error| in_file(&index_path, error))?;
        let mut layer = Self {
            path,
            file: Arc::new(file),
            index,
            rules: Rules::default(),
            frame: None,
            ahead: Ahead::Nothing,
            lost: None,
            buffer: vec![0; BUFFER],
        };
        layer.read_head(disk)?;
        layer.next_frame()?;
        Ok(layer)
    }

    /// What the layers below had beyond this layer's size is gone, up to `end`.
    pub(crate) fn hide_below(&mut self, size: u64, end: u64) {
        self.lost = (size < end).then(|| Extent { offset: size, length: end - size });
        if self.ahead == Ahead::Nothing {
            self.take_lost();
        }
    }

    /// Where the next extent begins.
    pub(crate) fn start(&self) -> Option<u64> {
        match &self.ahead {
            Ahead::Frame(entry) => Some(entry.first),
            Ahead::Piece(piece) => Some(piece.extent.offset),
            Ahead::Nothing => None,
        }
    }

    /// The frame that comes next, if it has not been opened.
    pub(crate) fn unopened(&self) -> Option<&Entry> {
        match &self.ahead {
            Ahead::Frame(entry) => Some(entry),
            _ => None,
        }
    }

    /// Drops what lies before `offset`, without decompressing more than it must.
    pub(crate) fn advance(&mut self, offset: u64) -> Result<()> {
        while self.start().is_some_and(|start| start < offset) {
            match &self.ahead {
                Ahead::Frame(entry) if entry.end <= offset => self.next_frame()?,
                Ahead::Frame(_) => {
                    self.piece()?;
                }
                Ahead::Piece(piece) => {
                    let skipped = (offset - piece.extent.offset).min(piece.extent.length);
                    self.skip(skipped)?;
                }
                Ahead::Nothing => {}
            }
        }
        Ok(())
    }

    /// The next extent; opens its frame.
    pub(crate) fn piece(&mut self) -> Result<Option<Piece>> {
        if let Ahead::Frame(entry) = &self.ahead {
            let entry = entry.clone();
            self.check(&entry)?;
            self.frame = Some((self.decoder(&entry)?, entry));
            self.next_record()?;
        }
        match &self.ahead {
            Ahead::Piece(piece) => Ok(Some(*piece)),
            _ => Ok(None),
        }
    }

    /// Reads data of the present extent; they are no longer part of it.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        let read = match &mut self.frame {
            Some((decoder, _)) => decoder.read_exact(buffer),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        read.map_err(|error| self.damaged(&error.to_string()))?;
        self.shorten(buffer.len() as u64)
    }

    /// Leaves out the beginning of the present extent.
    pub(crate) fn skip(&mut self, mut length: u64) -> Result<()> {
        if matches!(self.ahead, Ahead::Piece(Piece { data: false, .. })) {
            return self.shorten(length);
        }
        let mut buffer = [0; 16 << 10];
        while length > 0 {
            let count = buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            self.read(&mut buffer[..count])?;
            length -= count as u64;
        }
        Ok(())
    }

    /// The frame that comes next as it is in the file, checked; what follows it comes next.
    pub(crate) fn take_frame(&mut self) -> Result<Option<Packed>> {
        let Ahead::Frame(entry) = &self.ahead else { return Ok(None) };
        let entry = entry.clone();
        let mut bytes = vec![0; usize::try_from(entry.file_bytes).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, entry.file_offset).map_err(|error| self.damaged(&error.to_string()))?;
        if *blake3::hash(&bytes).as_bytes() != entry.blake3 {
            return Err(self.changed(&entry));
        }
        self.next_frame()?;
        Ok(Some(Packed { bytes, entry }))
    }

    fn shorten(&mut self, length: u64) -> Result<()> {
        if let Ahead::Piece(Piece { extent, .. }) = &mut self.ahead {
            extent.offset += length;
            extent.length -= length.min(extent.length);
            if extent.length == 0 {
                return self.next_record();
            }
        }
        Ok(())
    }

    fn next_record(&mut self) -> Result<()> {
        let Some((mut decoder, entry)) = self.frame.take() else {
            // What the image lost is the last extent, and is in no frame.
            self.ahead = Ahead::Nothing;
            return Ok(());
        };
        if self.rules.reached == entry.end {
            // The decoder compares the content's checksum when it finds the end.
            return match decoder.read(&mut [0]) {
                Ok(0) => self.next_frame(),
                Ok(_) => Err(self.damaged("a frame is longer than its index says")),
                Err(error) => Err(self.damaged(&error.to_string())),
            };
        }
        let record = read_record(&mut decoder).map_err(|error| self.damaged(&error.message))?;
        self.rules.accept(&record).map_err(|error| self.damaged(&error.message))?;
        let (Record::Data(extent) | Record::Zero(extent)) = record else {
            return Err(self.damaged("a frame of extents holds another record"));
        };
        if extent.offset < entry.first || extent.end() > entry.end || extent.length == 0 {
            return Err(self.damaged("a frame has an extent that its index does not have"));
        }
        self.frame = Some((decoder, entry));
        self.ahead = Ahead::Piece(Piece { extent, data: matches!(record, Record::Data(_)) });
        Ok(())
    }

    fn next_frame(&mut self) -> Result<()> {
        let entry = self.index.next().map_err(|error| in_file(&self.path.with_extension("index"), error))?;
        match entry {
            Some(entry) if entry.part == Part::Data => {
                self.rules.reached = entry.first;
                self.ahead = Ahead::Frame(entry);
            }
            Some(entry) => {
                self.check(&entry)?;
                let record = read_record(&mut self.decoder(&entry)?).map_err(|error| self.damaged(&error.message))?;
                if record != Record::End || self.index.next()?.is_some() {
                    return Err(self.damaged("the last frame does not hold the end of the stream"));
                }
                self.take_lost();
            }
            None => self.take_lost(),
        }
        Ok(())
    }

    fn take_lost(&mut self) {
        self.ahead = match self.lost.take() {
            Some(extent) => Ahead::Piece(Piece { extent, data: false }),
            None => Ahead::Nothing,
        };
    }

    fn read_head(&mut self, disk: &Disk) -> Result<()> {
        let entry = self.index.next()?.ok_or_else(|| self.damaged("there is no frame"))?;
        self.check(&entry)?;
        let mut text = Vec::new();
        let read = self.decoder(&entry)?.take(64 << 10).read_to_end(&mut text);
        read.map_err(|error| self.damaged(&error.to_string()))?;
        let mut input = text.as_slice();
        read_banner(&mut input).map_err(|error| self.damaged(&error.message))?;
        while !input.is_empty() {
            let record = read_record(&mut input).map_err(|error| self.damaged(&error.message))?;
            self.rules.accept(&record).map_err(|error| self.damaged(&error.message))?;
        }
        let wanted =
            Head { from: disk.from_snapshot.clone(), to: Some(disk.to_snapshot.clone()), size: Some(disk.size) };
        match self.rules.head == wanted {
            true => Ok(()),
            false => Err(self.damaged("holds other snapshots or another size than the manifest says")),
        }
    }

    /// Compares a frame with its digest.
    fn check(&mut self, entry: &Entry) -> Result<()> {
        let mut section = self.section(entry);
        let mut digest = blake3::Hasher::new();
        loop {
            match section.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => digest.update(&self.buffer[..count]),
                Err(error) => return Err(self.damaged(&error.to_string())),
            };
        }
        match *digest.finalize().as_bytes() == entry.blake3 {
            true => Ok(()),
            false => Err(self.changed(entry)),
        }
    }

    fn section(&self, entry: &Entry) -> Section {
        let (at, end) = (entry.file_offset, entry.file_offset + entry.file_bytes);
        Section { file: Arc::clone(&self.file), at, end }
    }

    fn decoder(&self, entry: &Entry) -> Result<Decoder> {
        let input = BufReader::with_capacity(BUFFER, self.section(entry));
        let decoder = Decoder::with_buffer(input).and_then(|mut decoder| {
            decoder.window_log_max(WINDOW_LOG)?;
            Ok(decoder.single_frame())
        });
        decoder.map_err(|error| self.damaged(&error.to_string()))
    }

    fn changed(&self, entry: &Entry) -> Error {
        let (from, to) = (entry.file_offset, entry.file_offset + entry.file_bytes);
        self.damaged(&format!(
            "bytes {from} to {to} are not what was written (image offset {} to {})",
            entry.first, entry.end
        ))
    }

    fn damaged(&self, message: &str) -> Error {
        Error::damaged(format!("{}: {message}", self.path.display()))
    }
}

fn in_file(path: &Path, error: Error) -> Error {
    Error { message: format!("{}: {}", path.display(), error.message), ..error }
}
