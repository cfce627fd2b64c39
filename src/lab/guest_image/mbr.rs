//! The first sector of a disk: boot code and up to four partitions.

/// Bytes in a sector.
pub(super) const SECTOR: u64 = 512;

/// Boot code that fits before the disk's signature.
const CODE: usize = 440;

/// One partition, in sectors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partition {
    /// Where it begins.
    pub(super) start: u32,
    /// How long it is.
    pub(super) sectors: u32,
    /// What is in it, by the table's numbers.
    pub(super) kind: u8,
    /// Whether the boot code starts it.
    pub(super) active: bool,
}

/// The sector that starts the active one of `partitions` with `code`; `None` where either does not fit.
pub(super) fn sector(code: &[u8], partitions: &[Partition]) -> Option<[u8; SECTOR as usize]> {
    let mut sector = [0; SECTOR as usize];
    if code.len() > CODE || partitions.len() > 4 {
        return None;
    }
    sector[..code.len()].copy_from_slice(code);
    for (i, partition) in partitions.iter().enumerate() {
        let entry = &mut sector[446 + 16 * i..][..16];
        entry[0] = if partition.active { 0x80 } else { 0 };
        // Cylinders are out of use: this value says "look at the sector numbers".
        entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
        entry[4] = partition.kind;
        entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
        entry[8..12].copy_from_slice(&partition.start.to_le_bytes());
        entry[12..16].copy_from_slice(&partition.sectors.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    Some(sector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_where_firmware_looks_for_it() {
        let boot = Partition { start: 2048, sectors: 4096, kind: 0x0e, active: true };
        let data = Partition { start: 6144, sectors: 8, kind: 0xda, active: false };
        let sector = sector(&[0xfa; 440], &[boot, data]).unwrap();
        assert_eq!(sector[439..442], [0xfa, 0, 0]);
        assert_eq!((sector[446], sector[450]), (0x80, 0x0e));
        assert_eq!(sector[454..462], [0, 8, 0, 0, 0, 16, 0, 0]);
        assert_eq!((sector[462], sector[466]), (0, 0xda));
        assert_eq!(sector[510..], [0x55, 0xaa]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(sector(&[0; 441], &[]).is_none());
    }
}
