//! Reads back what the tiny guest wrote to its disk and proves that nothing of it was lost, repeated or mixed up.

use std::fmt;

/// Where the ring begins on the tiny image's disk, in bytes.
pub const RING_START: u64 = super::tiny::RING_START as u64 * 512;
/// How long the ring is, in bytes.
pub const RING_LENGTH: u64 = super::tiny::RING_SECTORS as u64 * 512;

const RECORD: usize = 512;

/// One flushed write of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// One more than the record before.
    pub seq: u64,
    /// Which boot of the guest wrote it.
    pub boot: String,
    /// Milliseconds since that boot.
    pub uptime_ms: u64,
}

/// What is wrong with a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A slot holds something that is no whole record.
    Damaged(usize),
    /// A slot holds a record that belongs elsewhere.
    Misplaced(usize, u64),
    /// A record between the oldest and the newest is not there.
    Missing(u64),
    /// Within one boot, time went back or a boot came back after another: two writers.
    Mixed(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Damaged(slot) => write!(f, "slot {slot} holds no whole record"),
            Fault::Misplaced(slot, seq) => write!(f, "slot {slot} holds record {seq}"),
            Fault::Missing(seq) => write!(f, "record {seq} is missing"),
            Fault::Mixed(seq) => write!(f, "record {seq} was written by another boot at the same time"),
        }
    }
}

impl std::error::Error for Fault {}

/// The records of a ring, oldest first, when they form one unbroken history.
///
/// # Errors
/// The first fault found.
pub fn history(ring: &[u8]) -> Result<Vec<Record>, Fault> {
    let slots = ring.len() / RECORD;
    let mut records = Vec::new();
    for (slot, bytes) in ring.chunks_exact(RECORD).enumerate() {
        if bytes.iter().all(|b| *b == 0) {
            continue;
        }
        let record = parse(bytes).ok_or(Fault::Damaged(slot))?;
        if record.seq % slots as u64 != slot as u64 {
            return Err(Fault::Misplaced(slot, record.seq));
        }
        records.push(record);
    }
    records.sort_by_key(|r| r.seq);
    let mut ended: Vec<&str> = Vec::new();
    for pair in records.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        if after.seq != before.seq + 1 {
            return Err(Fault::Missing(before.seq + 1));
        }
        if after.boot == before.boot {
            if after.uptime_ms < before.uptime_ms {
                return Err(Fault::Mixed(after.seq));
            }
        } else {
            ended.push(&before.boot);
            if ended.contains(&after.boot.as_str()) {
                return Err(Fault::Mixed(after.seq));
            }
        }
    }
    Ok(records)
}

fn parse(bytes: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
    let (body, sum) = text.trim_end().rsplit_once(" sum=")?;
    if u32::from_str_radix(sum, 16).ok()? != checksum(body.as_bytes()) {
        return None;
    }
    let mut words = body.split(' ');
    if words.next()? != "rackhand-tiny/1" {
        return None;
    }
    let (mut seq, mut boot, mut uptime_ms) = (None, None, None);
    for (key, value) in words.filter_map(|w| w.split_once('=')) {
        match key {
            "seq" => seq = value.parse().ok(),
            "boot" => boot = Some(value.to_owned()),
            "uptime_ms" => uptime_ms = value.parse().ok(),
            _ => {}
        }
    }
    Some(Record { seq: seq?, boot: boot?, uptime_ms: uptime_ms? })
}

/// FNV-1a, as the guest computes it.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(2_166_136_261, |sum, b| (sum ^ u32::from(*b)).wrapping_mul(16_777_619))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring of eight slots after these writes of (boot, uptime), numbered from 1.
    fn ring(writes: &[(&str, u64)]) -> Vec<u8> {
        let mut ring = vec![0; 8 * RECORD];
        for (i, (boot, uptime)) in writes.iter().enumerate() {
            put(&mut ring, i as u64 + 1, boot, *uptime);
        }
        ring
    }

    fn put(ring: &mut [u8], seq: u64, boot: &str, uptime: u64) {
        let body = format!("rackhand-tiny/1 seq={seq} boot={boot} uptime_ms={uptime} unix_ms=1");
        let text = format!("{body} sum={:08x}\n", checksum(body.as_bytes()));
        let slot = &mut ring[(seq % 8) as usize * RECORD..][..RECORD];
        slot.fill(0);
        slot[..text.len()].copy_from_slice(text.as_bytes());
    }

    #[test]
    fn a_real_record_is_read() {
        let text = "rackhand-tiny/1 seq=1 boot=5fe8f120-0318-41c8-9edd-04aa8f59b251 uptime_ms=1597 \
                    unix_ms=1795429707202 sum=d92c86cc\n";
        let record = parse(text.as_bytes()).unwrap();
        assert_eq!((record.seq, record.uptime_ms), (1, 1597));
    }

    #[test]
    fn a_history_over_boots_and_around_the_ring_holds() {
        let mut writes: Vec<_> = (0..7).map(|i| ("a", i * 200)).collect();
        writes.extend((0..5).map(|i| ("b", i * 200)));
        let records = history(&ring(&writes)).unwrap();
        assert_eq!(records.iter().map(|r| r.seq).collect::<Vec<_>>(), [5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(history(&ring(&[])).unwrap(), []);
    }

    #[test]
    fn two_writers_are_seen() {
        assert_eq!(history(&ring(&[("a", 0), ("b", 0), ("a", 400)])), Err(Fault::Mixed(3)));
        assert_eq!(history(&ring(&[("a", 500), ("a", 400)])), Err(Fault::Mixed(2)));
    }

    #[test]
    fn loss_and_damage_are_seen() {
        let mut holed = ring(&[("a", 0)]);
        put(&mut holed, 3, "a", 400);
        assert_eq!(history(&holed), Err(Fault::Missing(2)));
        let mut torn = ring(&[("a", 0), ("a", 200)]);
        torn[2 * RECORD + 20] ^= 1;
        assert_eq!(history(&torn), Err(Fault::Damaged(2)));
        let mut moved = ring(&[("a", 0)]);
        moved.rotate_right(RECORD);
        assert_eq!(history(&moved), Err(Fault::Misplaced(2, 1)));
    }
}
