//! Formats of disk images, and what people take for them, by their first and last bytes.

/// Incompatible features of qcow2 that keep data elsewhere: bit 2, external data file.
const QCOW2_EXTERNAL_DATA: u64 = 1 << 2;
/// Feature of QED: it has a backing file.
const QED_BACKING: u64 = 1;
/// Disk types of a VHD (Microsoft's "Virtual Hard Disk Image Format Specification").
const VHD_FIXED: u64 = 2;
const VHD_DYNAMIC: u64 = 3;
/// Bytes of a VMDK's beginning that hold its descriptor; QEMU reads 20 sectors of it from the second sector on.
const VMDK_HEAD: usize = 64 << 10;

/// Why a file is not taken, and what helps.
pub(super) struct Wrong {
    pub(super) what: &'static str,
    pub(super) fix: &'static str,
}

const CONVERT: &str = "convert it first: qemu-img convert -O qcow2 FILE FILE.qcow2";
const FLATTEN: &str = "flatten it first, where all its files are: qemu-img convert -O qcow2 FILE FLAT.qcow2";
const UNPACK: &str = "unpack it first";
const INSTALL: &str = "import a disk that was installed from it: guests boot from disks";

fn wrong<T>(what: &'static str, fix: &'static str) -> Option<Result<T, Wrong>> {
    Some(Err(Wrong { what, fix }))
}

/// `N` bytes at a place.
pub(super) fn at<const N: usize>(bytes: &[u8], place: usize) -> Option<[u8; N]> {
    bytes.get(place..place + N)?.try_into().ok()
}

fn big(bytes: &[u8], place: usize, length: usize) -> u64 {
    bytes.get(place..place + length).map_or(0, |b| b.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
}

fn little(bytes: &[u8], place: usize, length: usize) -> u64 {
    bytes.get(place..place + length).map_or(0, |b| b.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}

/// The format of a virtual disk, as `qemu-img -f` takes it, or why this one is not taken.
pub(super) fn virtual_disk(head: &[u8], tail: &[u8]) -> Option<Result<&'static str, Wrong>> {
    let begins = |magic: &[u8]| head.starts_with(magic);
    if begins(b"QFI\xfb") {
        return qcow(head);
    }
    if begins(b"KDMV") {
        return vmdk(head);
    }
    if begins(b"COWD") {
        return wrong("it is a VMDK of the old form of ESX (COWD)", CONVERT);
    }
    if begins(b"# Disk DescriptorFile") {
        return wrong(
            "it is the descriptor of a VMDK, its data is in other files",
            "convert it where all its files are: qemu-img convert -O qcow2 FILE FILE.qcow2",
        );
    }
    if begins(b"QED\0") {
        let backed = little(head, 16, 8) & QED_BACKING != 0;
        return if backed { wrong("it stands on another image (a backing file)", FLATTEN) } else { Some(Ok("qed")) };
    }
    if begins(b"vhdxfile") {
        return Some(Ok("vhdx"));
    }
    if begins(b"conectix") {
        return vhd(head);
    }
    if at(head, 0x40) == Some(0xbeda_107f_u32.to_le_bytes()) {
        // 1 grows, 2 is of full size; the others are differences to another image.
        let plain = matches!(little(head, 0x4c, 4), 1 | 2);
        return if plain { Some(Ok("vdi")) } else { wrong("it stands on another image", FLATTEN) };
    }
    if begins(b"WithoutFreeSpace") || begins(b"WithouFreSpacExt") {
        return wrong("it is a disk of Parallels", CONVERT);
    }
    if tail.starts_with(b"conectix") {
        return vhd(tail);
    }
    None
}

/// qcow2 (layout: QEMU's `docs/interop/qcow2.txt`, all numbers big-endian).
fn qcow(head: &[u8]) -> Option<Result<&'static str, Wrong>> {
    let version = big(head, 4, 4);
    if version == 1 {
        return wrong("it is a qcow of version 1", CONVERT);
    }
    if head.len() < 72 || !(2..=3).contains(&version) {
        return wrong("its qcow2 header is damaged", "");
    }
    if big(head, 8, 8) != 0 {
        return wrong("it stands on another image (a backing file)", FLATTEN);
    }
    if big(head, 32, 4) != 0 {
        return wrong("it is encrypted", "");
    }
    if version == 3 && big(head, 72, 8) & QCOW2_EXTERNAL_DATA != 0 {
        return wrong("its data is in another file", FLATTEN);
    }
    if big(head, 24, 8) == 0 { wrong("its disk is empty", "") } else { Some(Ok("qcow2")) }
}

/// A VMDK in one file (VMware's "Virtual Disk Format 5.0"): without a capacity of its own its descriptor would name others.
fn vmdk(head: &[u8]) -> Option<Result<&'static str, Wrong>> {
    if little(head, 12, 8) == 0 {
        return wrong("it is a VMDK whose data is in other files", FLATTEN);
    }
    let descriptor = String::from_utf8_lossy(&head[..head.len().min(VMDK_HEAD)]).to_lowercase();
    let parent = descriptor.split("parentcid=").nth(1).is_some_and(|cid| !cid.starts_with("ffffffff"));
    if parent || descriptor.contains("parentfilenamehint") {
        return wrong("it stands on another image (a snapshot of a VMDK)", FLATTEN);
    }
    Some(Ok("vmdk"))
}

/// Where a VDI ends at the earliest: behind the blocks it says it has. QEMU reads zeros for what is missing.
pub(super) fn vdi_end(head: &[u8]) -> u64 {
    let (data, block, blocks) = (little(head, 0x158, 4), little(head, 0x178, 4), little(head, 0x184, 4));
    blocks.saturating_mul(block).saturating_add(data)
}

fn vhd(footer: &[u8]) -> Option<Result<&'static str, Wrong>> {
    match big(footer, 60, 4) {
        VHD_FIXED | VHD_DYNAMIC => Some(Ok("vpc")),
        _ => wrong("it is a VHD that stands on another one", FLATTEN),
    }
}

/// Files that people take for disk images. None of them becomes one by being taken all the same.
pub(super) fn other(head: &[u8], tail: &[u8]) -> Option<Wrong> {
    const MAGICS: [(&[u8], &str, &str); 24] = [
        (b"PK\x03\x04", "it is a zip archive", UNPACK),
        (b"7z\xbc\xaf\x27\x1c", "it is a 7z archive", UNPACK),
        (b"Rar!\x1a\x07", "it is a RAR archive", UNPACK),
        (b"\x04\x22\x4d\x18", "it is compressed with lz4", UNPACK),
        (b"LZIP", "it is compressed with lzip", UNPACK),
        (b"\x89LZO", "it is compressed with lzop", UNPACK),
        (b"\x1f\x9d", "it is compressed with compress", UNPACK),
        (b"070701", "it is a cpio archive, perhaps an initramfs", ""),
        (b"070702", "it is a cpio archive, perhaps an initramfs", ""),
        (b"!<arch>", "it is a package or a library", ""),
        (b"\xed\xab\xee\xdb", "it is an RPM package", ""),
        (
            b"LUKS\xba\xbe",
            "it is encrypted with LUKS, and nothing could boot from it",
            "import the disk that is inside of it",
        ),
        (b"-FVE-FS-", "it is a partition encrypted with BitLocker", ""),
        (b"hsqs", "it is a squashfs, the file system of a live system", INSTALL),
        (b"sqsh", "it is a squashfs, the file system of a live system", INSTALL),
        (b"MSWIM\0\0\0", "it is a Windows installation image (WIM)", INSTALL),
        (b"rbd image v", "it is an `rbd export` with `--export-format 2`", "export it again without that option"),
        (b"rbd diff v", "it is an `rbd export-diff`", "export the whole image: rbd export"),
        (b"VCLMTNRVBKHDR", "it is a backup", ""),
        (b"VMA\0", "it is a backup of Proxmox VE (VMA)", "unpack it first: vma extract FILE DIRECTORY"),
        (b"%PDF", "it is a PDF", ""),
        (b"\x89PNG", "it is a picture", ""),
        (b"\x7fELF", "it is a program", ""),
        (b"QEVM", "it is the saved memory of a guest", ""),
    ];
    let start = String::from_utf8_lossy(&head[..head.len().min(256)]).trim_start().to_lowercase();
    if start.starts_with("<!doctype") || start.starts_with("<html") {
        return Some(Wrong {
            what: "it is a web page",
            fix: "check the URL: it may ask for a login, or the file may have moved",
        });
    }
    if start.starts_with("version https://git-lfs") {
        return Some(Wrong { what: "it is a pointer of Git LFS", fix: "fetch the file itself: git lfs pull" });
    }
    if let Some((_, what, fix)) = MAGICS.iter().find(|(magic, ..)| head.starts_with(magic)) {
        return Some(Wrong { what, fix });
    }
    if tail.starts_with(b"koly") {
        return Some(Wrong { what: "it is a DMG of macOS", fix: CONVERT });
    }
    let boots = at(head, 510) == Some([0x55, 0xaa]);
    // Hybrid CDs boot as disks.
    if head.get(0x8001..0x8006) == Some(b"CD001".as_slice()) && !boots {
        return Some(Wrong { what: "it is a CD", fix: INSTALL });
    }
    if head.starts_with(b"MZ") && !boots {
        return Some(Wrong { what: "it is a program or a kernel", fix: "" });
    }
    let text = head.iter().take(512).all(|b| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e));
    text.then_some(Wrong { what: "it is text", fix: "" })
}

/// File systems and parts of them that stand where a boot sector should.
pub(super) fn file_system(head: &[u8]) -> Option<&'static str> {
    let has = |place: usize, magic: &[u8]| head.get(place..place + magic.len()) == Some(magic);
    [
        (0x438, b"\x53\xef".as_slice(), "it is an ext file system without a boot sector or a partition table"),
        (0, b"XFSB", "it is an XFS file system without a boot sector or a partition table"),
        (0x10040, b"_BHRfS_M", "it is a btrfs file system without a boot sector or a partition table"),
        (0x400, b"\xe2\xe1\xf5\xe0", "it is an EROFS file system without a boot sector or a partition table"),
        (0x400, b"\x10\x20\xf5\xf2", "it is an F2FS file system without a boot sector or a partition table"),
        (0x200, b"LABELONE", "it is a physical volume of LVM without a boot sector or a partition table"),
        (0xff6, b"SWAPSPACE2", "it is swap space"),
    ]
    .into_iter()
    .find(|(place, magic, _)| has(*place, magic))
    .map(|(.., what)| what)
}
