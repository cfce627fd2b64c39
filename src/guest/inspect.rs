//! What a file is, before anything is done with it.

use crate::error::Failure;
use std::io::{Read, Seek, SeekFrom};

/// Bytes read from the beginning; a file system on a CD says so at 32 KiB.
const HEAD: usize = 36 << 10;
/// Incompatible features of qcow2 that keep data elsewhere: bit 2, external data file.
const EXTERNAL_DATA: u64 = 1 << 2;

/// A disk image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFile {
    /// `qcow2` or `raw`.
    pub format: &'static str,
    /// Bytes of the file.
    pub length: u64,
    /// Bytes of the disk in it.
    pub size: u64,
    /// Why it may not boot.
    pub doubt: Option<&'static str>,
}

/// Looks at a file's content.
///
/// # Errors
/// When it is no disk image, or one that refers to something outside of it.
pub fn inspect(name: &str, mut file: impl Read + Seek) -> Result<DiskFile, Failure> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut head = Vec::new();
    file.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    let no = |what: &str| Failure::usage(format!("{name} is no disk image: {what}"));
    if length == 0 {
        return Err(no("it is empty"));
    }
    if head.starts_with(b"QFI\xfb") {
        return qcow2(name, &head, length);
    }
    if let Some((what, hint)) = other_kind(&head) {
        let failure = no(what);
        return Err(if hint.is_empty() { failure } else { failure.hint(hint) });
    }
    if !length.is_multiple_of(512) {
        return Err(no("it is neither qcow2 nor whole sectors"));
    }
    let boots = head.len() >= 512 && head[510..512] == [0x55, 0xaa];
    let gpt = head.get(512..520) == Some(b"EFI PART".as_slice());
    let doubt = (!boots && !gpt).then_some("it has neither a boot sector nor a partition table");
    Ok(DiskFile { format: "raw", length, size: length, doubt })
}

/// Files that people take for disk images.
fn other_kind(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let start = String::from_utf8_lossy(&head[..head.len().min(256)]).trim_start().to_lowercase();
    let unpack = "unpack it first";
    let convert = "convert it first: qemu-img convert -O qcow2 FILE FILE.qcow2";
    if start.starts_with("<!doctype") || start.starts_with("<html") {
        return Some(("it is a web page", "check the URL: it may ask for a login, or the file may have moved"));
    }
    let magics: [(&[u8], &str, &str); 9] = [
        (b"\x1f\x8b", "it is compressed with gzip", unpack),
        (b"\xfd7zXZ\0", "it is compressed with xz", unpack),
        (b"BZh", "it is compressed with bzip2", unpack),
        (b"\x28\xb5\x2f\xfd", "it is compressed with zstd", unpack),
        (b"PK\x03\x04", "it is a zip archive", unpack),
        (b"KDMV", "it is a VMDK", convert),
        (b"vhdxfile", "it is a VHDX", convert),
        (b"conectix", "it is a VHD", convert),
        (b"\x7fELF", "it is a program", ""),
    ];
    if let Some((_, what, hint)) = magics.iter().find(|(magic, ..)| head.starts_with(magic)) {
        return Some((what, hint));
    }
    if head.get(0x8001..0x8006) == Some(b"CD001".as_slice()) && head.get(510..512) != Some([0x55, 0xaa].as_slice()) {
        return Some(("it is a CD", ""));
    }
    let text = head.iter().take(512).all(|b| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e));
    text.then_some(("it is text", ""))
}

/// Reads a qcow2 header (layout: QEMU's `docs/interop/qcow2.txt`, all numbers big-endian).
fn qcow2(name: &str, head: &[u8], length: u64) -> Result<DiskFile, Failure> {
    let number = |at: usize, bytes: usize| -> u64 {
        head.get(at..at + bytes).map_or(0, |b| b.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    };
    let no = |what: &str| Failure::usage(format!("{name} cannot be imported: {what}"));
    let version = number(4, 4);
    if head.len() < 72 || !(2..=3).contains(&version) {
        return Err(no("its qcow2 header is damaged"));
    }
    if number(8, 8) != 0 {
        return Err(no("it stands on another image (a backing file)")
            .hint("flatten it first: qemu-img convert -O qcow2 FILE FLAT.qcow2"));
    }
    if number(32, 4) != 0 {
        return Err(no("it is encrypted"));
    }
    if version == 3 && number(72, 8) & EXTERNAL_DATA != 0 {
        return Err(no("its data is in another file"));
    }
    let size = number(24, 8);
    if size == 0 {
        return Err(no("its disk is empty"));
    }
    Ok(DiskFile { format: "qcow2", length, size, doubt: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn look(bytes: &[u8]) -> Result<DiskFile, String> {
        inspect("x", Cursor::new(bytes)).map_err(|f| f.to_string())
    }

    fn qcow2(change: impl Fn(&mut Vec<u8>)) -> Result<DiskFile, String> {
        let mut head = vec![0; 4096];
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        head[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        change(&mut head);
        look(&head)
    }

    #[test]
    fn what_is_no_disk_image_is_refused() {
        let table: [(&[u8], &str); 6] = [
            (b"", "x is no disk image: it is empty"),
            (b"  <!DOCTYPE html><p>Moved", "x is no disk image: it is a web page"),
            (b"\x1f\x8b\x08\0", "x is no disk image: it is compressed with gzip"),
            (b"just some words\n", "x is no disk image: it is text"),
            (&[1; 700], "x is no disk image: it is neither qcow2 nor whole sectors"),
            (b"KDMV\x01\0\0\0", "x is no disk image: it is a VMDK"),
        ];
        for (bytes, message) in table {
            assert_eq!(look(bytes).unwrap_err(), message);
        }
    }

    #[test]
    fn a_raw_disk_is_known_by_its_boot_sector() {
        let mut disk = vec![0; 1 << 20];
        assert!(look(&disk).unwrap().doubt.is_some());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(look(&disk).unwrap(), DiskFile { format: "raw", length: 1 << 20, size: 1 << 20, doubt: None });
    }

    #[test]
    fn a_qcow2_that_leans_on_other_files_is_refused() {
        assert_eq!(qcow2(|_| ()).unwrap().size, 1 << 30);
        assert!(qcow2(|h| h[15] = 1).unwrap_err().contains("backing file"));
        assert!(qcow2(|h| h[35] = 1).unwrap_err().contains("encrypted"));
        assert!(qcow2(|h| h[79] = 4).unwrap_err().contains("another file"));
        assert!(qcow2(|h| h[7] = 9).unwrap_err().contains("damaged"));
    }
}
