//! Ceph's diff format, version 1 (`doc/dev/rbd-diff.rst`): the records, one after another, and the rules between them.

use crate::error::{Error, ErrorKind, Result};
use std::io::{self, Read};

/// What a stream begins with.
pub(crate) const BANNER: &[u8; 12] = b"rbd diff v1\n";
/// What a frame holds of a stream at most, in bytes.
pub(crate) const FRAME_LIMIT: usize = 4 << 20;
/// Records of data are split at multiples of this offset: writes stay aligned, and two of them do not fit one frame.
pub(crate) const SPLIT: u64 = 2 << 20;
/// A tag, an offset and a length.
pub(crate) const EXTENT_HEADER: usize = 17;
/// No name of a snapshot is as long.
const NAME_LIMIT: usize = 1024;

/// A record without the data that follows a `Data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// The snapshot that this is a difference to.
    From(String),
    /// The snapshot that it leads to.
    To(String),
    /// The image's size.
    Size(u64),
    /// Data for an extent, which follow.
    Data(Extent),
    /// An extent of zeros.
    Zero(Extent),
    /// The end.
    End,
}

/// A part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Extent {
    /// The first offset after it; the rules of a stream exclude an overflow.
    pub(crate) fn end(self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// A failed read: the end is an error of the stream, anything else one of the file system.
pub(crate) fn read_error(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::stream("the diff stream ends before its end record"),
        _ => Error::new(ErrorKind::Io, format!("reading the diff stream: {error}")),
    }
}

fn fill<const N: usize>(input: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map_err(|error| read_error(&error))?;
    Ok(bytes)
}

fn number(input: &mut impl Read) -> Result<u64> {
    Ok(u64::from_le_bytes(fill(input)?))
}

fn name(input: &mut impl Read) -> Result<String> {
    let length = u32::from_le_bytes(fill(input)?) as usize;
    if length == 0 || length > NAME_LIMIT {
        return Err(Error::stream(format!("the diff stream has a snapshot's name of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes).map_err(|error| read_error(&error))?;
    String::from_utf8(bytes).map_err(|_| Error::stream("the diff stream has a snapshot's name that is not UTF-8"))
}

/// Reads the first bytes of a stream.
pub(crate) fn read_banner(input: &mut impl Read) -> Result<()> {
    if fill::<12>(input)? != *BANNER {
        return Err(Error::stream("this is no Ceph diff stream of version 1"));
    }
    Ok(())
}

/// Reads a record; the data of a `Data` are still to be read.
pub(crate) fn read_record(input: &mut impl Read) -> Result<Record> {
    let [tag] = fill::<1>(input)?;
    Ok(match tag {
        b'f' => Record::From(name(input)?),
        b't' => Record::To(name(input)?),
        b's' => Record::Size(number(input)?),
        b'w' => Record::Data(Extent { offset: number(input)?, length: number(input)? }),
        b'z' => Record::Zero(Extent { offset: number(input)?, length: number(input)? }),
        b'e' => Record::End,
        other => return Err(Error::stream(format!("the diff stream has a record of the unknown kind {other:#04x}"))),
    })
}

/// Appends a record to a stream.
pub(crate) fn write_record(record: &Record, output: &mut Vec<u8>) {
    let mut named = |tag: u8, name: &str| {
        output.push(tag);
        output.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
        output.extend_from_slice(name.as_bytes());
    };
    match record {
        Record::From(name) => named(b'f', name),
        Record::To(name) => named(b't', name),
        Record::Size(size) => {
            output.push(b's');
            output.extend_from_slice(&size.to_le_bytes());
        }
        Record::Data(extent) | Record::Zero(extent) => {
            output.push(if matches!(record, Record::Data(_)) { b'w' } else { b'z' });
            output.extend_from_slice(&extent.offset.to_le_bytes());
            output.extend_from_slice(&extent.length.to_le_bytes());
        }
        Record::End => output.push(b'e'),
    }
}

/// What a stream says before its first extent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) size: Option<u64>,
}

impl Head {
    /// The banner and the records of a head.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = BANNER.to_vec();
        let from = self.from.clone().map(Record::From);
        let to = self.to.clone().map(Record::To);
        for record in from.into_iter().chain(to).chain(self.size.map(Record::Size)) {
            write_record(&record, &mut bytes);
        }
        bytes
    }
}

/// The rules between the records of a stream.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) head: Head,
    /// Where the last extent ended.
    pub(crate) reached: u64,
    extents: bool,
    ended: bool,
}

impl Rules {
    /// Refuses a record that may not follow what came before.
    pub(crate) fn accept(&mut self, record: &Record) -> Result<()> {
        if self.ended {
            return Err(Error::stream("the diff stream goes on after its end record"));
        }
        let head = matches!(record, Record::From(_) | Record::To(_) | Record::Size(_));
        if head && self.extents {
            return Err(Error::stream("the diff stream names a snapshot or a size after its first extent"));
        }
        let twice = match record {
            Record::From(name) => self.head.from.replace(name.clone()).is_some(),
            Record::To(name) => self.head.to.replace(name.clone()).is_some(),
            Record::Size(size) => self.head.size.replace(*size).is_some(),
            Record::Data(extent) | Record::Zero(extent) => {
                self.extent(*extent)?;
                false
            }
            Record::End => {
                self.ended = true;
                false
            }
        };
        if twice {
            return Err(Error::stream("the diff stream names a snapshot or a size twice"));
        }
        Ok(())
    }

    fn extent(&mut self, extent: Extent) -> Result<()> {
        self.extents = true;
        let Some(size) = self.head.size else {
            return Err(Error::stream("the diff stream has an extent before the image's size"));
        };
        let Extent { offset, length } = extent;
        if offset < self.reached {
            return Err(Error::stream(format!(
                "the diff stream has an extent at {offset} after one that ends at {}: it must be in ascending order",
                self.reached
            )));
        }
        match offset.checked_add(length).filter(|end| *end <= size) {
            Some(end) => self.reached = end,
            None => {
                return Err(Error::stream(format!(
                    "the diff stream has an extent at {offset} of {length} bytes beyond the image's size of {size}"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(bytes: &[u8]) -> Result<Vec<Record>> {
        let mut input = bytes;
        read_banner(&mut input)?;
        let (mut rules, mut found) = (Rules::default(), Vec::new());
        loop {
            let record = read_record(&mut input)?;
            rules.accept(&record)?;
            if let Record::Data(extent) = &record {
                let length = usize::try_from(extent.length).unwrap();
                input = input.get(length..).ok_or_else(|| Error::stream("short"))?;
            }
            let last = record == Record::End;
            found.push(record);
            if last {
                return Ok(found);
            }
        }
    }

    fn sample() -> Vec<u8> {
        let head = Head { from: Some("a".into()), to: Some("b".into()), size: Some(100) };
        let mut bytes = head.bytes();
        write_record(&Record::Data(Extent { offset: 3, length: 4 }), &mut bytes);
        bytes.extend_from_slice(b"abcd");
        write_record(&Record::Zero(Extent { offset: 10, length: 90 }), &mut bytes);
        write_record(&Record::End, &mut bytes);
        bytes
    }

    #[test]
    fn the_bytes_are_those_of_ceph() {
        let wanted =
            b"rbd diff v1\nf\x01\0\0\0at\x01\0\0\0bs\x64\0\0\0\0\0\0\0w\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0abcd\
                       z\x0a\0\0\0\0\0\0\0\x5a\0\0\0\0\0\0\0e";
        assert_eq!(sample(), wanted);
        assert_eq!(records(wanted).unwrap().len(), 6);
    }

    #[test]
    fn a_stream_that_ends_early_is_refused_at_every_byte() {
        let bytes = sample();
        for end in 0..bytes.len() {
            assert_eq!(records(&bytes[..end]).unwrap_err().kind, ErrorKind::Stream, "cut at {end}");
        }
    }

    #[test]
    fn extents_outside_the_image_and_out_of_order_are_refused() {
        let base = Head { from: None, to: Some("b".into()), size: Some(100) };
        let extents = |list: &[(u64, u64)]| {
            let mut bytes = base.bytes();
            for (offset, length) in list {
                write_record(&Record::Zero(Extent { offset: *offset, length: *length }), &mut bytes);
            }
            write_record(&Record::End, &mut bytes);
            records(&bytes)
        };
        extents(&[(0, 10), (10, 90)]).unwrap();
        for wrong in [vec![(0, 101)], vec![(101, 1)], vec![(1, u64::MAX)], vec![(5, 5), (9, 1)], vec![(50, 1), (3, 1)]]
        {
            assert_eq!(extents(&wrong).unwrap_err().kind, ErrorKind::Stream, "{wrong:?}");
        }
    }

    #[test]
    fn a_name_without_end_does_not_take_memory() {
        let mut bytes = BANNER.to_vec();
        bytes.extend_from_slice(b"t\xff\xff\xff\xff");
        assert!(records(&bytes).unwrap_err().message.contains("4294967295"));
    }
}
