//! The disk in a tar archive, which an OVA is: it is found, and read where it lies.

use std::io::{Read, Seek, SeekFrom};

const BLOCK: u64 = 512;
/// Members looked at; an appliance has less than ten.
const MEMBERS: usize = 10_000;
/// What names of disks end with.
const DISKS: [&str; 7] = [".vmdk", ".qcow2", ".raw", ".img", ".vdi", ".vhd", ".vhdx"];

/// A file in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    /// Where its bytes begin.
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Whether these are the first bytes of a tar archive (POSIX `pax`, "ustar Interchange Format").
pub(super) fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar".as_slice()) && header(head).is_some()
}

/// A number as tar writes it: octal digits, or where they do not suffice bytes after a mark.
fn number(field: &[u8]) -> Option<u64> {
    if field.first().is_some_and(|b| b & 0x80 != 0) {
        let (head, rest) = field.split_first()?;
        return rest.iter().try_fold(u64::from(head & 0x7f), |n, b| n.checked_mul(256)?.checked_add(u64::from(*b)));
    }
    let digits: Vec<u8> = field.iter().copied().skip_while(|b| *b == b' ').take_while(u8::is_ascii_digit).collect();
    u64::from_str_radix(std::str::from_utf8(&digits).ok()?, 8).ok()
}

/// Name, length and kind of the member a header block tells of; `None` when its sum is wrong.
fn header(block: &[u8]) -> Option<(String, u64, u8)> {
    let block = block.get(..BLOCK as usize)?;
    let sum: u64 =
        block.iter().enumerate().map(|(n, b)| u64::from(if (148..156).contains(&n) { b' ' } else { *b })).sum();
    if number(&block[148..156])? != sum {
        return None;
    }
    let end = block[..100].iter().position(|b| *b == 0).unwrap_or(100);
    let name = String::from_utf8_lossy(&block[..end]).into_owned();
    Some((name, number(&block[124..136])?, block[156]))
}

/// The one disk of an archive of `length` bytes.
pub(super) fn only_disk(file: &mut (impl Read + Seek), length: u64) -> Result<Member, String> {
    let mut disks = Vec::new();
    let mut at = 0;
    for _ in 0..MEMBERS {
        let mut block = [0; BLOCK as usize];
        let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut block));
        // Two blocks of zeros are its end, as is the end of the file.
        if read.is_err() || block.iter().all(|b| *b == 0) {
            break;
        }
        let Some((name, size, kind)) = header(&block) else { return Err("it is a damaged tar archive".to_owned()) };
        let offset = at + BLOCK;
        let Some(end) = offset.checked_add(size).filter(|end| *end <= length) else {
            return Err(format!("it is a tar archive whose end is missing, in {}", crate::quote::plain(&name, 60)));
        };
        let lower = name.to_lowercase();
        // A name longer than 100 characters is in a member before it; what is cut off there is its end.
        let is_disk = DISKS.iter().any(|suffix| lower.ends_with(suffix)) || name.len() == 100 && size > 1 << 20;
        if matches!(kind, b'0' | 0) && is_disk {
            disks.push(Member { name: crate::quote::plain(&name, 60), offset, length: size });
        }
        at = end.next_multiple_of(BLOCK);
    }
    match disks.len() {
        1 => Ok(disks.remove(0)),
        0 => Err("it is a tar archive without a disk in it".to_owned()),
        n => {
            let names: Vec<String> = disks.into_iter().take(5).map(|disk| disk.name).collect();
            Err(format!("it is an archive with {n} disks: {}", names.join(", ")))
        }
    }
}
