//! The plain index beside a data file: a line a frame.

use crate::diff::FRAME_LIMIT;
use crate::error::{Error, Result};
use std::io::BufRead;

/// The first line.
pub(crate) const TITLE: &str = "rackhand-index 1";
/// The second line: what the columns are.
pub(crate) const COLUMNS: &str =
    "# part file-offset file-bytes stream-bytes image-first image-end data-bytes zero-bytes blake3";
/// A line is never as long.
const LINE_LIMIT: usize = 512;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The banner, the snapshots and the size: the first frame.
    Head,
    /// Extents.
    Data,
    /// The end record: the last frame.
    End,
}

/// A line of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) part: Part,
    /// Where the frame begins in the data file.
    pub(crate) file_offset: u64,
    /// How long it is there.
    pub(crate) file_bytes: u64,
    /// How long it is when decompressed.
    pub(crate) stream_bytes: u64,
    /// The offset of its first extent in the image.
    pub(crate) first: u64,
    /// The end of its last extent in the image.
    pub(crate) end: u64,
    /// How many bytes of the image it writes.
    pub(crate) data_bytes: u64,
    /// How many bytes of the image it sets to zero.
    pub(crate) zero_bytes: u64,
    /// Of the frame as it is in the data file.
    pub(crate) blake3: [u8; 32],
}

impl Entry {
    /// One whose figures are still to be filled in.
    pub(crate) fn new(part: Part) -> Self {
        let blake3 = [0; 32];
        let (file_offset, file_bytes, stream_bytes, first, end) = (0, 0, 0, 0, 0);
        Self { part, file_offset, file_bytes, stream_bytes, first, end, data_bytes: 0, zero_bytes: 0, blake3 }
    }

    /// Whether its extents leave no gap.
    pub(crate) fn is_dense(&self) -> bool {
        self.data_bytes + self.zero_bytes == self.end - self.first
    }

    /// Its line, without the end of the line.
    pub(crate) fn line(&self) -> String {
        let part = match self.part {
            Part::Head => 'h',
            Part::Data => 'd',
            Part::End => 'e',
        };
        format!(
            "{part} {} {} {} {} {} {} {} {}",
            self.file_offset,
            self.file_bytes,
            self.stream_bytes,
            self.first,
            self.end,
            self.data_bytes,
            self.zero_bytes,
            hex(&self.blake3)
        )
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let part = match words.next()? {
            "h" => Part::Head,
            "d" => Part::Data,
            "e" => Part::End,
            _ => return None,
        };
        let mut numbers = [0_u64; 7];
        for number in &mut numbers {
            *number = words.next()?.parse().ok()?;
        }
        let [file_offset, file_bytes, stream_bytes, first, end, data_bytes, zero_bytes] = numbers;
        let blake3 = *blake3::Hash::from_hex(words.next()?).ok()?.as_bytes();
        let sound = words.next().is_none()
            && file_offset.checked_add(file_bytes).is_some()
            && file_bytes as usize <= zstd::zstd_safe::compress_bound(FRAME_LIMIT)
            && stream_bytes as usize <= FRAME_LIMIT
            && first <= end
            && data_bytes.checked_add(zero_bytes)? <= end - first;
        sound.then_some(Self {
            part,
            file_offset,
            file_bytes,
            stream_bytes,
            first,
            end,
            data_bytes,
            zero_bytes,
            blake3,
        })
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads an index line by line: it is never in memory as a whole.
pub(crate) struct IndexReader<R> {
    input: R,
    /// Where the next frame must begin.
    offset: u64,
    /// Where its extents may begin.
    reached: u64,
    last: Option<Part>,
}

impl<R: BufRead> IndexReader<R> {
    /// Reads the first two lines.
    pub(crate) fn new(mut input: R) -> Result<Self> {
        let title = line(&mut input)?;
        if title.as_deref() != Some(TITLE) {
            return Err(Error::damaged(format!("begins with {title:?}, not with {TITLE:?}")));
        }
        if line(&mut input)?.as_deref() != Some(COLUMNS) {
            return Err(Error::damaged("has other columns"));
        }
        Ok(Self { input, offset: 0, reached: 0, last: None })
    }

    /// The next frame; none after the one of the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let Some(text) = line(&mut self.input)? else {
            return match self.last {
                Some(Part::End) => Ok(None),
                _ => Err(Error::damaged("ends before the frame of the end")),
            };
        };
        let entry = Entry::parse(&text).ok_or_else(|| Error::damaged(format!("has the line {text:?}")))?;
        let follows = match self.last {
            None => entry.part == Part::Head,
            Some(Part::End) => false,
            Some(_) => entry.part != Part::Head,
        };
        let joins = entry.file_offset == self.offset && (entry.part != Part::Data || entry.first >= self.reached);
        if !follows || !joins {
            return Err(Error::damaged(format!("has a line that does not follow the one before: {text:?}")));
        }
        self.offset += entry.file_bytes;
        self.reached = self.reached.max(entry.end);
        self.last = Some(entry.part);
        Ok(Some(entry))
    }
}

fn line(input: &mut impl BufRead) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    let mut limited = std::io::Read::take(input, LINE_LIMIT as u64);
    limited.read_until(b'\n', &mut bytes).map_err(|error| Error::damaged(format!("cannot be read: {error}")))?;
    match bytes.pop() {
        None => Ok(None),
        Some(b'\n') => String::from_utf8(bytes).map(Some).map_err(|_| Error::damaged("is not text")),
        Some(_) => Err(Error::damaged("has a line without an end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_and_nothing_else_does() {
        let mut entry = Entry::new(Part::Data);
        entry.file_offset = 70;
        entry.file_bytes = 12;
        entry.stream_bytes = 34;
        entry.first = 4096;
        entry.end = 8192;
        entry.data_bytes = 4096;
        entry.blake3 = [7; 32];
        assert_eq!(Entry::parse(&entry.line()), Some(entry.clone()));
        assert!(entry.is_dense());
        for wrong in ["", "d 1 2", "x 0 0 0 0 0 0 0 00", &entry.line().replace("4096 8192", "8192 4096")] {
            assert_eq!(Entry::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Entry::parse(&format!("{} 1", entry.line())), None);
    }

    #[test]
    fn an_index_that_ends_early_is_damaged() {
        let mut head = Entry::new(Part::Head);
        head.file_bytes = 10;
        let mut end = Entry::new(Part::End);
        end.file_offset = 10;
        let read = |lines: &[String]| {
            let text = format!("{TITLE}\n{COLUMNS}\n{}", lines.concat());
            let mut reader = IndexReader::new(text.as_bytes())?;
            let mut count = 0;
            while reader.next()?.is_some() {
                count += 1;
            }
            Ok::<usize, Error>(count)
        };
        let (head, end) = (format!("{}\n", head.line()), format!("{}\n", end.line()));
        assert_eq!(read(&[head.clone(), end.clone()]).unwrap(), 2);
        assert!(read(std::slice::from_ref(&head)).is_err());
        assert!(read(&[end.clone(), head.clone()]).is_err());
        assert!(read(&[head.clone(), end[..20].to_owned()]).is_err());
        assert!(read(&[head.clone(), head, end]).is_err());
    }
}
