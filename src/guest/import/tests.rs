//! The import's talk with the host, and the host's script with a stand-in for qemu-img.

use super::*;
use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn progress_of_qemu_img_is_read() {
    assert_eq!(percent("(12.34/100%)"), Some(12));
    assert_eq!(percent("RECEIVED"), None);
}

#[tokio::test]
async fn what_the_host_says_is_followed_to_its_end() {
    let job = crate::ui::Ui::hidden().job("x");
    follow(&b"RECEIVED\n    (0.00/100%)\r    (100.00/100%)\r\nDONE\n"[..], "h1", &job).await.unwrap();
    let failure = follow(&b"FAIL qemu-img ended with 1: no space\n"[..], "h1", &job).await.unwrap_err();
    assert_eq!(failure.to_string(), "host h1: qemu-img ended with 1: no space");
    let lost = follow(&b"RECEIVED\n"[..], "h1", &job).await.unwrap_err();
    assert_eq!(lost.to_string(), "connection to host h1 lost");
    job.done("");
}

#[tokio::test]
async fn a_compressed_file_is_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it's.raw.gz");
    let mut disk = vec![0; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(&disk).unwrap();
    let bytes = writer.finish().unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let found = look("x", &path).await.unwrap();
    assert_eq!((found.format, found.unpack, found.length), ("raw", Some("gzip"), bytes.len() as u64));
    std::fs::write(&path, b"\x1f\x8bdamaged").unwrap();
    assert_eq!(look("x", &path).await.unwrap_err().to_string(), "x is not a disk image: gzip finds nothing in it");
}

/// Runs the host's script on a file; `info` is what qemu-img is to say of it, `{}` for the file's path.
fn on_host(file: &[u8], format: &str, unpack: &str, info: &str) -> (String, Vec<u8>) {
    on_host_with(10_000, file, format, unpack, info)
}

/// The same, with so many bytes free of a file system of 18,000.
fn on_host_with(free: u32, file: &[u8], format: &str, unpack: &str, info: &str) -> (String, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let df = dir.path().join("df");
    std::fs::write(&df, format!("#!/bin/sh\necho '  Avail 1B-blocks'\necho '{free} 18000'\n")).unwrap();
    assert!(Command::new("chmod").arg("755").arg(&df).status().unwrap().success());
    let tool = dir.path().join("qemu-img");
    let out = dir.path().join("converted");
    let stand_in = format!(
        "#!/bin/sh\nfor file; do case $file in */image) break;; esac; done\ncase $1 in\n\
         info) printf '%s' '{info}' | sed \"s|{{}}|$file|g\";;\ncheck) case $* in *damaged*) echo bad; exit 2;; esac; exit 63;;\n\
         convert) cp \"$file\" {};;\nesac\n",
        out.display()
    );
    std::fs::write(&tool, stand_in).unwrap();
    assert!(Command::new("chmod").arg("755").arg(&tool).status().unwrap().success());
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let mut child = Command::new("sh")
        .args(["-c", SCRIPT, "sh", &file.len().to_string(), format, "guests/image.x", "60", unpack])
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(file).unwrap();
    stdin.write_all(b"GO\n").unwrap();
    drop(stdin);
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let last = said.lines().rfind(|line| !line.is_empty()).unwrap_or_default().to_owned();
    (last, std::fs::read(out).unwrap_or_default())
}

#[test]
fn the_host_converts_what_it_is_sent_and_unpacks_it_first() {
    let plain = r#"{"filename": "{}", "format": "raw"}"#;
    assert_eq!(on_host(b"disk", "raw", "", plain), ("DONE".into(), b"disk".to_vec()));
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(b"the disk").unwrap();
    let packed = writer.finish().unwrap();
    assert_eq!(on_host(&packed, "raw", "gzip", plain), ("DONE".into(), b"the disk".to_vec()));
    let (said, made) = on_host(&packed[..packed.len() - 4], "raw", "gzip", plain);
    assert!(said.starts_with("FAIL gzip cannot unpack it: ") && made.is_empty(), "{said}");
}

#[test]
fn a_file_that_would_fill_the_host_is_refused_before_and_after_it_is_unpacked() {
    let plain = r#"{"filename": "{}", "format": "raw"}"#;
    let (said, _) = on_host_with(1_004, b"disk", "raw", "", plain);
    assert_eq!(said, "FAIL /var/tmp has 4 bytes to spare, 4 are needed");
    assert_eq!(on_host_with(1_005, b"disk", "raw", "", plain).0, "DONE");
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(&[0; 100_000]).unwrap();
    let (said, made) = on_host(&writer.finish().unwrap(), "raw", "gzip", plain);
    assert_eq!(said, "FAIL unpacked it has more than the 9000 bytes that /var/tmp can spare");
    assert!(made.is_empty());
}

#[test]
fn the_host_converts_nothing_that_refers_to_another_file() {
    for info in [
        r#"{"filename": "{}", "backing-filename": "/etc/shadow"}"#,
        r#"{"filename": "{}", "full-backing-filename": "/etc/shadow"}"#,
        r#"{"filename": "{}", "format-specific": {"data": {"data-file": "/etc/shadow"}}}"#,
        r#"{"filename": "{}", "format-specific": {"extents": [{"filename": "/etc/shadow"}]}}"#,
    ] {
        assert_eq!(on_host(b"disk", "vmdk", "", info), ("FAIL it refers to another file".into(), vec![]), "{info}");
    }
}
