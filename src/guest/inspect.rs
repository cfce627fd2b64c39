//! What a file is, before anything is done with it.
//!
//! A file names its own format, and QEMU believes what a format says: another file of the host as backing, or as extent, would
//! be read by root and end up in the image. So a format is told to QEMU, and what refers to other files is refused here.

use super::archive::{self, Member};
use super::formats;
use crate::error::Failure;
use std::io::{Read, Seek, SeekFrom};

/// Bytes read from the beginning; btrfs says what it is at 64 KiB.
pub(super) const HEAD: usize = 68 << 10;
/// Bytes read from the end; a fixed VHD and a DMG say what they are there.
const TAIL: usize = 512;

/// A disk image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFile {
    /// Its format, as `qemu-img -f` takes it.
    pub format: &'static str,
    /// The program that unpacks it, where it is compressed.
    pub unpack: Option<&'static str>,
    /// Where it begins in the file: not at 0 within an archive.
    pub offset: u64,
    /// Its bytes in the file.
    pub length: u64,
    /// Why it may not boot.
    pub doubt: Option<&'static str>,
}

/// Compressed files that hold a disk image, and what unpacks them.
const PACKED: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd")];

/// What compressed a file, if anything did.
pub(super) fn packed(head: &[u8]) -> Option<&'static str> {
    PACKED.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, program)| *program)
}

fn no(name: &str, what: &str) -> Failure {
    Failure::usage(format!("{name} is not a disk image: {what}"))
}

/// Looks at a file's content; `None` for a compressed file, into which `inspect_packed` looks.
///
/// # Errors
/// When it is not a disk image, or one that refers to something outside of it.
pub fn inspect(name: &str, mut file: impl Read + Seek) -> Result<Option<DiskFile>, Failure> {
    let length = file.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Err(no(name, "it is empty"));
    }
    let head = piece(&mut file, 0, HEAD)?;
    if packed(&head).is_some() {
        return Ok(None);
    }
    if archive::is_tar(&head) {
        let Member { name: inside, offset, length } = archive::only_disk(&mut file, length)
            .map_err(|what| no(name, &what).hint("unpack it, and import the disk in it"))?;
        let whole = format!("{name}: {inside}");
        let head = piece(&mut file, offset, HEAD.min(usize::try_from(length).unwrap_or(HEAD)))?;
        if packed(&head).is_some() {
            return Err(no(name, &format!("{inside} in it is compressed")).hint("unpack it, and import the disk in it"));
        }
        let tail = piece(&mut file, offset + length.saturating_sub(TAIL as u64), TAIL)?;
        return judge(&whole, &head, &tail, length).map(|disk| Some(DiskFile { offset, ..disk }));
    }
    let tail = piece(&mut file, length.saturating_sub(TAIL as u64), TAIL)?;
    judge(name, &head, &tail, length).map(Some)
}

/// Looks at a compressed file: at the beginning of what is in it.
///
/// # Errors
/// As [`inspect`].
pub(super) fn inspect_packed(
    name: &str,
    program: &'static str,
    length: u64,
    inner: &[u8],
) -> Result<DiskFile, Failure> {
    if inner.is_empty() {
        return Err(no(name, &format!("{program} finds nothing in it")));
    }
    if let Some(again) = packed(inner) {
        return Err(
            no(name, &format!("it is compressed with {again}, and that with {program}")).hint("unpack it first")
        );
    }
    if archive::is_tar(inner) {
        let hint = format!("unpack it, and import the disk in it: {program} -dc FILE | tar -x");
        return Err(no(name, &format!("it is a tar archive compressed with {program}")).hint(hint));
    }
    // How long it is, and how it ends, shows when it is unpacked on the host.
    let disk = judge(name, inner, &[], 0)?;
    Ok(DiskFile { unpack: Some(program), length, ..disk })
}

fn piece(file: &mut (impl Read + Seek), at: u64, length: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(at))?;
    file.by_ref().take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Tells the format by the beginning and the end; `length` is 0 where it is not known.
fn judge(name: &str, head: &[u8], tail: &[u8], length: u64) -> Result<DiskFile, Failure> {
    let disk = |format, doubt| DiskFile { format, unpack: None, offset: 0, length, doubt };
    match formats::virtual_disk(head, tail) {
        Some(Ok("vdi")) if length > 0 && formats::vdi_end(head) > length => {
            return Err(
                Failure::usage(format!("{name} cannot be imported: its end is missing")).hint("fetch or copy it again")
            );
        }
        Some(Ok(format)) => return Ok(disk(format, None)),
        Some(Err(wrong)) => {
            let failure = Failure::usage(format!("{name} cannot be imported: {}", wrong.what));
            return Err(if wrong.fix.is_empty() { failure } else { failure.hint(wrong.fix) });
        }
        None => {}
    }
    if let Some(wrong) = formats::other(head, tail) {
        let failure = no(name, wrong.what);
        return Err(if wrong.fix.is_empty() { failure } else { failure.hint(wrong.fix) });
    }
    if !length.is_multiple_of(512) {
        return Err(no(name, "its format is not known, and it does not end with a whole sector"));
    }
    let boots = formats::at(head, 510) == Some([0x55, 0xaa]);
    let gpt = head.get(512..520) == Some(b"EFI PART".as_slice());
    let doubt = (!boots && !gpt)
        .then(|| formats::file_system(head).unwrap_or("it has neither a boot sector nor a partition table"));
    Ok(disk("raw", doubt))
}

#[cfg(test)]
mod tests;
