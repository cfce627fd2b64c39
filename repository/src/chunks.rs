//! A stream in chunks on another stream: a length (u32, big endian) and its bytes; length 0 ends it.

use crate::error::{Error, Result};
use std::io::{self, BufRead, Read};

/// One stream of several on an input.
pub(crate) struct Chunks<'a> {
    input: &'a mut dyn BufRead,
    left: usize,
    ended: bool,
}

impl<'a> Chunks<'a> {
    pub(crate) fn new(input: &'a mut dyn BufRead) -> Self {
        Self { input, left: 0, ended: false }
    }

    /// Requires that the stream has been read to its end.
    pub(crate) fn finish(mut self) -> Result<()> {
        match self.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Error::stream("the diff stream goes on after its end record")),
            Err(error) => Err(crate::diff::read_error(&error)),
        }
    }
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.ended {
            return Ok(0);
        }
        if self.left == 0 {
            let mut length = [0; 4];
            self.input.read_exact(&mut length)?;
            self.left = u32::from_be_bytes(length) as usize;
            if self.left == 0 {
                self.ended = true;
                return Ok(0);
            }
        }
        let wanted = buffer.len().min(self.left);
        let count = self.input.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_come_one_after_another_and_an_early_end_is_an_error() {
        let bytes = b"\0\0\0\x02ab\0\0\0\x01c\0\0\0\0\0\0\0\x01d\0\0\0\0";
        let mut input = &bytes[..];
        for wanted in ["abc", "d"] {
            let mut text = String::new();
            let mut chunks = Chunks::new(&mut input);
            chunks.read_to_string(&mut text).unwrap();
            chunks.finish().unwrap();
            assert_eq!(text, wanted);
        }
        let mut cut = &bytes[..9];
        assert!(Chunks::new(&mut cut).read_to_end(&mut Vec::new()).is_err());
    }
}
