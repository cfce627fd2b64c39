//! Beginnings and ends of files of many kinds, made by hand as their formats say.

use super::*;
use std::io::Cursor;

fn look(bytes: &[u8]) -> Result<Option<DiskFile>, Failure> {
    inspect("x", Cursor::new(bytes))
}

fn refused(bytes: &[u8]) -> String {
    look(bytes).unwrap_err().to_string()
}

fn with(length: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; length];
    for (at, part) in parts {
        bytes[*at..*at + part.len()].copy_from_slice(part);
    }
    bytes
}

fn format(bytes: &[u8]) -> &'static str {
    let disk = look(bytes).unwrap().unwrap();
    assert_eq!((disk.doubt, disk.offset, disk.unpack), (None, 0, None));
    disk.format
}

const BOOTS: (usize, &[u8]) = (510, &[0x55, 0xaa]);

fn qcow2(parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = with(4096, &[(0, b"QFI\xfb\0\0\0\x03"), (27, &[0x40])]);
    for (at, part) in parts {
        bytes[*at..*at + part.len()].copy_from_slice(part);
    }
    bytes
}

fn vmdk(descriptor: &str) -> Vec<u8> {
    with(70_000, &[(0, b"KDMV\x01\0\0\0"), (12, &[0, 8]), (512, descriptor.as_bytes())])
}

fn vhd(kind: u8) -> Vec<u8> {
    with(512, &[(0, b"conectix"), (63, &[kind])])
}

#[test]
fn virtual_disks_of_every_kind_are_told_to_qemu_by_their_format() {
    assert_eq!(format(&qcow2(&[])), "qcow2");
    assert_eq!(format(&vmdk("# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n")), "vmdk");
    assert_eq!(
        format(&with(
            4096,
            &[(0, b"<<< Oracle VM VirtualBox Disk Image >>>"), (0x40, b"\x7f\x10\xda\xbe"), (0x4c, &[1])]
        )),
        "vdi"
    );
    assert_eq!(format(&with(4096, &[(0, b"vhdxfile")])), "vhdx");
    assert_eq!(format(&with(4096, &[(0, &vhd(3))])), "vpc");
    assert_eq!(format(&with(4096, &[(0, b"QED\0")])), "qed");
    // A fixed VHD is a raw disk with a footer: an odd number of sectors.
    assert_eq!(format(&with(512 * 2049, &[BOOTS, (512 * 2048, &vhd(2))])), "vpc");
    assert_eq!(format(&with(512 * 2049, &[BOOTS])), "raw");
}

#[test]
fn what_refers_to_other_files_is_refused() {
    let table: [(Vec<u8>, &str); 11] = [
        (qcow2(&[(15, &[1])]), "it stands on another image (a backing file)"),
        (qcow2(&[(35, &[1])]), "it is encrypted"),
        (qcow2(&[(79, &[4])]), "its data is in another file"),
        (qcow2(&[(7, &[9])]), "its qcow2 header is damaged"),
        (qcow2(&[(7, &[1])]), "it is a qcow of version 1"),
        (with(4096, &[(0, b"KDMV\x01\0\0\0")]), "it is a VMDK whose data is in other files"),
        (vmdk("parentCID=12345678\n"), "it stands on another image (a snapshot of a VMDK)"),
        (vmdk("parentFileNameHint=\"/etc/shadow\"\n"), "it stands on another image (a snapshot of a VMDK)"),
        (with(4096, &[(0, b"QED\0"), (16, &[1])]), "it stands on another image (a backing file)"),
        (with(4096, &[(0, &vhd(4))]), "it is a VHD that stands on another one"),
        (with(4096, &[(0x40, b"\x7f\x10\xda\xbe"), (0x4c, &[4])]), "it stands on another image"),
    ];
    for (bytes, what) in table {
        assert_eq!(refused(&bytes), format!("x cannot be imported: {what}"));
    }
    let descriptor = b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/shadow\" 0\n";
    assert!(refused(descriptor).contains("its data is in other files"));
}

#[test]
fn a_vdi_whose_end_is_missing_is_refused() {
    let parts: [(usize, &[u8]); 5] =
        [(0x40, b"\x7f\x10\xda\xbe"), (0x4c, &[1]), (0x158, &[0, 0x10]), (0x178, &[0, 0x10]), (0x184, &[2])];
    assert_eq!(format(&with(3 << 12, &parts)), "vdi");
    assert_eq!(refused(&with((3 << 12) - 512, &parts)), "x cannot be imported: its end is missing");
}

#[test]
fn what_is_not_a_disk_image_is_named_and_no_force_is_offered() {
    let table: [(Vec<u8>, &str); 17] = [
        (vec![], "it is empty"),
        (b"  <!DOCTYPE html><p>Moved".into(), "it is a web page"),
        (b"just some words\n".into(), "it is text"),
        (b"version https://git-lfs.github.com/spec/v1\n".into(), "it is a pointer of Git LFS"),
        (vec![1; 700], "its format is not known, and it does not end with a whole sector"),
        (with(1024, &[(0, b"PK\x03\x04")]), "it is a zip archive"),
        (with(1024, &[(0, b"7z\xbc\xaf\x27\x1c")]), "it is a 7z archive"),
        (with(1024, &[(0, b"LUKS\xba\xbe")]), "it is encrypted with LUKS, and nothing could boot from it"),
        (with(1024, &[(0, b"hsqs")]), "it is a squashfs, the file system of a live system"),
        (with(1 << 16, &[(0x8001, b"CD001")]), "it is a CD"),
        (with(1024, &[(0, b"070701")]), "it is a cpio archive, perhaps an initramfs"),
        (with(1024, &[(0, b"MSWIM\0\0\0")]), "it is a Windows installation image (WIM)"),
        (with(1024, &[(0, b"\x7fELF")]), "it is a program"),
        (with(1024, &[(0, b"MZ")]), "it is a program or a kernel"),
        (with(1024, &[(0, b"rbd diff v1\n")]), "it is an `rbd export-diff`"),
        (with(1024, &[(512, b"koly")]), "it is a DMG of macOS"),
        (with(1024, &[(0, b"VMA\0")]), "it is a backup of Proxmox VE (VMA)"),
    ];
    for (bytes, what) in table {
        let failure = look(&bytes).unwrap_err();
        assert_eq!(failure.to_string(), format!("x is not a disk image: {what}"));
        assert!(failure.hints.iter().all(|hint| !hint.contains("--force")));
    }
    for (bytes, what) in [
        (with(1024, &[(0, b"COWD")]), "it is a VMDK of the old form of ESX (COWD)"),
        (with(1024, &[(0, b"WithouFreSpacExt")]), "it is a disk of Parallels"),
    ] {
        assert_eq!(refused(&bytes), format!("x cannot be imported: {what}"));
    }
}

#[test]
fn a_raw_disk_is_known_by_its_boot_sector_and_a_file_system_is_named() {
    let doubt = |parts: &[(usize, &[u8])]| look(&with(1 << 17, parts)).unwrap().unwrap().doubt;
    assert_eq!(doubt(&[BOOTS]), None);
    assert_eq!(doubt(&[(512, b"EFI PART")]), None);
    assert_eq!(doubt(&[BOOTS, (0x8001, b"CD001")]), None, "a hybrid CD boots as a disk");
    assert!(doubt(&[]).unwrap().contains("neither a boot sector"));
    assert!(doubt(&[(0x438, b"\x53\xef")]).unwrap().contains("ext file system"));
    assert!(doubt(&[(0x10040, b"_BHRfS_M")]).unwrap().contains("btrfs"));
    assert!(doubt(&[(0x200, b"LABELONE")]).unwrap().contains("LVM"));
}

/// A member of a tar archive.
fn member(name: &str, content: &[u8]) -> Vec<u8> {
    let mut head = with(512, &[(0, name.as_bytes()), (100, b"0000644\0"), (156, b"0"), (257, b"ustar\x0000")]);
    head[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    head[148..156].fill(b' ');
    let sum: u32 = head.iter().map(|b| u32::from(*b)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head.extend_from_slice(content);
    head.resize(head.len().next_multiple_of(512), 0);
    head
}

#[test]
fn the_disk_of_an_appliance_is_read_where_it_lies() {
    let disk = vmdk("parentCID=ffffffff\n");
    let ova = [member("a.ovf", b"<Envelope/>"), member("a-disk1.vmdk", &disk), member("a.mf", b"x"), vec![0; 1024]];
    let found = look(&ova.concat()).unwrap().unwrap();
    assert_eq!((found.format, found.offset, found.length), ("vmdk", 512 * 3, disk.len() as u64));
    let table = [
        (
            vec![member("a.ovf", b"x"), member("a.vmdk", &disk), member("b.vmdk", &disk)],
            "it is an archive with 2 disks: a.vmdk, b.vmdk",
        ),
        (vec![member("etc/passwd", b"x")], "it is a tar archive without a disk in it"),
        (vec![member("a.vmdk", &disk)[..9000].to_vec()], "it is a tar archive whose end is missing, in a.vmdk"),
        (vec![member("disk.raw", b"\x1f\x8b\x08")], "disk.raw in it is compressed"),
    ];
    for (members, what) in table {
        assert_eq!(refused(&members.concat()), format!("x is not a disk image: {what}"));
    }
    // What is in it is judged like any other file.
    let hostile = member("a.vmdk", &vmdk("parentFileNameHint=\"/etc/shadow\"\n"));
    assert!(refused(&hostile).starts_with("x: a.vmdk cannot be imported: it stands on another image"));
    let mut damaged = member("a.vmdk", &disk);
    damaged[0] = b'b';
    assert!(!archive::is_tar(&damaged), "its sum is wrong");
}

#[test]
fn a_compressed_file_is_judged_by_what_is_in_it() {
    for (magic, program) in
        [(&b"\x1f\x8b"[..], "gzip"), (b"\xfd7zXZ\0", "xz"), (b"BZh9", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd")]
    {
        assert_eq!(look(magic).unwrap(), None);
        assert_eq!(packed(magic), Some(program));
    }
    let inner = |bytes: &[u8]| inspect_packed("x", "xz", 99, bytes);
    let disk = inner(&qcow2(&[])).unwrap();
    assert_eq!((disk.format, disk.unpack, disk.length), ("qcow2", Some("xz"), 99));
    assert_eq!(inner(&with(1 << 17, &[BOOTS])).unwrap().format, "raw");
    assert!(inner(&with(1 << 17, &[])).unwrap().doubt.is_some());
    let table = [
        (qcow2(&[(15, &[1])]), "x cannot be imported: it stands on another image (a backing file)"),
        (b"\x1f\x8b".to_vec(), "x is not a disk image: it is compressed with gzip, and that with xz"),
        (member("disk.raw", b"x"), "x is not a disk image: it is a tar archive compressed with xz"),
        (b"text\n".to_vec(), "x is not a disk image: it is text"),
        (vec![], "x is not a disk image: xz finds nothing in it"),
    ];
    for (bytes, expected) in table {
        assert_eq!(inner(&bytes).unwrap_err().to_string(), expected);
    }
}

proptest::proptest! {
    #[test]
    fn no_file_makes_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2000), magic in 0usize..8) {
        let magics: [&[u8]; 8] = [b"", b"QFI\xfb", b"KDMV", b"QED\0", b"conectix", b"vhdxfile", b"COWD", b"LUKS"];
        let _ = look(&[magics[magic], &bytes].concat());
        let mut tar = member("a.vmdk", &bytes);
        tar.truncate(512 + bytes.len() / 2);
        let _ = look(&tar);
    }
}
