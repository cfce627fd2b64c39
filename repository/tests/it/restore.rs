//! `restore.sh` as it lies in a point, with a stand-in for `rbd` that knows nothing of this crate.

use crate::disk::{BLOCK, Repo, chunked, diff, noise, one};
use rackhand_repository as store;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use store::{ReceiveDisk, TEMPLATES};

/// `rbd` by its manual: images are files below $RBD_POOLS, snapshots lines of a file beside them.
const RBD: &str = r#"#!/usr/bin/env python3
import os, struct, sys
pools = os.environ["RBD_POOLS"]
words = [w for w in sys.argv[1:] if w != "--no-progress"]
def image(spec): return os.path.join(pools, spec.replace("/", "+"))
def snaps(spec): return image(spec) + ".snaps"
def refuse(text): sys.exit("rbd: " + text)
with open(os.path.join(pools, "log"), "a") as log: log.write(" ".join(words) + "\n")
if words[0] == "info":
    if not os.path.exists(image(words[1])): sys.exit(2)
elif words[0] == "create":
    assert words[1] == "--size" and words[2].endswith("B")
    if os.path.exists(image(words[3])): refuse("exists")
    with open(image(words[3]), "wb") as f: f.truncate(int(words[2][:-1]))
    open(snaps(words[3]), "w").close()
elif words[:2] == ["snap", "rm"]:
    spec, name = words[2].split("@")
    names = open(snaps(spec)).read().split()
    names.remove(name)
    open(snaps(spec), "w").write("\n".join(names))
elif words[0] == "import-diff":
    path, spec = words[1:]
    names = open(snaps(spec)).read().split()
    to = None
    with open(path, "rb") as s, open(image(spec), "r+b") as f:
        def take(n):
            b = s.read(n)
            if len(b) != n: refuse("unexpected end")
            return b
        if take(12) != b"rbd diff v1\n": refuse("banner")
        while True:
            tag = take(1)
            if tag in b"ft":
                name = take(struct.unpack("<I", take(4))[0]).decode()
                if tag == b"f" and name not in names: refuse("start snapshot does not exist")
                if tag == b"t" and name in names: refuse("end snapshot exists")
                to = name if tag == b"t" else to
            elif tag == b"s": f.truncate(struct.unpack("<Q", take(8))[0])
            elif tag in b"wz":
                offset, length = struct.unpack("<QQ", take(16))
                f.seek(offset)
                f.write(take(length) if tag == b"w" else bytes(length))
            elif tag == b"e": break
            else: refuse("tag")
    open(snaps(spec), "w").write("\n".join(names + [to]))
else: refuse("what is " + words[0])
"#;

struct Pools {
    directory: tempfile::TempDir,
}

impl Pools {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rbd = directory.path().join("rbd");
        fs::write(&rbd, RBD).unwrap();
        fs::set_permissions(&rbd, fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    fn run(&self, point: &Path, arguments: &[&str]) -> Output {
        let path = format!("{}:{}", self.directory.path().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.arg(point.join("restore.sh")).args(arguments);
        command.env("PATH", path).env("RBD_POOLS", self.directory.path()).output().unwrap()
    }

    /// An image without snapshots.
    fn image(&self, name: &str) -> Vec<u8> {
        let file = self.directory.path().join(format!("guests+{name}"));
        assert_eq!(fs::read_to_string(file.with_file_name(format!("guests+{name}.snaps"))).unwrap(), "");
        fs::read(file).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const P: [&str; 3] = ["20261128T010000Z", "20261128T020000Z", "20261128T030000Z"];

#[test]
fn the_script_brings_back_a_chain_before_and_after_it_is_merged() {
    let repo = Repo::new();
    let mut images = vec![noise(1, 5 << 20)];
    repo.push(P[0], None, &images[0]).unwrap();
    for n in 1..3 {
        let mut image = images[n - 1].clone();
        image.resize((5 << 20) + n * 8 * BLOCK, 0);
        image[n * BLOCK..(n + 3) * BLOCK].copy_from_slice(&noise(n as u64 + 5, 3 * BLOCK));
        image[1 << 20..(1 << 20) + n * BLOCK].fill(0);
        repo.push(P[n], Some((P[n - 1], &images[n - 1])), &image).unwrap();
        images.push(image);
    }
    let pools = Pools::new();
    let output = pools.run(&repo.path(P[2]), &["guests"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "restored guests/guest.web-1.disk0\n");
    assert!(pools.image("guest.web-1.disk0") == images[2]);
    assert!(!pools.log().contains("import-diff -"), "rbd writes one request at a time from its standard input");
    repo.merge(P[2], None).unwrap();
    for n in 0..3 {
        let name = format!("old-{n}");
        let output = pools.run(&repo.path(P[n]), &["guests", "--as", &name]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(pools.image(&format!("{name}.disk0")) == images[n], "point {n}");
    }
}

#[test]
fn the_script_applies_the_template_first_and_takes_one_disk_of_several() {
    let repo = Repo::new();
    let base = noise(4, 20 * BLOCK);
    let mut template = repo.receive("debian@3", None, vec![one(base.len() as u64, None, "base")]);
    template.guest = TEMPLATES.into();
    repo.send(&template, &chunked(&diff(None, "base", &base))).unwrap();
    let mut image = base.clone();
    image[BLOCK..2 * BLOCK].fill(0);
    image.resize(24 * BLOCK, 0);
    let mut over = base;
    over.resize(24 * BLOCK, 0);
    let mut stream = diff(Some(("x", &over)), "s", &image);
    stream.drain(12..18);
    let data = noise(8, 3 * BLOCK);
    let disks = vec![
        ReceiveDisk { template: Some("debian@3".into()), ..one(image.len() as u64, None, "s") },
        ReceiveDisk { index: 12, image: "guest.web-1.disk12".into(), ..one(data.len() as u64, None, "s") },
    ];
    let payload = [chunked(&stream), chunked(&diff(None, "s", &data))].concat();
    repo.send(&repo.receive(P[0], None, disks), &payload).unwrap();
    let pools = Pools::new();
    let output = pools.run(&repo.path(P[0]), &["guests", "--disk", "12"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(pools.image("guest.web-1.disk12") == data && !pools.log().contains("disk0"));
    let output = pools.run(&repo.path(P[0]), &["guests", "--as", "copy"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(pools.image("copy.disk0") == image && pools.image("copy.disk12") == data);
    assert_eq!(pools.run(&repo.path(P[0]), &["guests", "--disk", "2"]).status.code(), Some(1));
}

#[test]
fn the_script_refuses_what_is_there_and_what_is_damaged_before_it_makes_anything() {
    let repo = Repo::new();
    let image = noise(1, 30 * BLOCK);
    repo.push(P[0], None, &image).unwrap();
    repo.push(P[1], Some((P[0], &image)), &image).unwrap();
    let pools = Pools::new();
    assert!(pools.run(&repo.path(P[1]), &["guests"]).status.success());
    let again = pools.run(&repo.path(P[1]), &["guests"]);
    assert!(stderr(&again).contains("is there already") && again.status.code() == Some(1));
    let file = repo.path(P[0]).join("disk-0.rbdiff.zst");
    let mut bytes = fs::read(&file).unwrap();
    bytes[2000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let damaged = pools.run(&repo.path(P[1]), &["guests", "--as", "other"]);
    assert!(stderr(&damaged).contains("is not what was stored"), "{}", stderr(&damaged));
    fs::remove_dir_all(repo.path(P[0])).unwrap();
    let missing = pools.run(&repo.path(P[1]), &["guests", "--as", "other"]);
    assert!(stderr(&missing).contains("is not there"), "{}", stderr(&missing));
    assert!(!pools.log().contains("other"), "{}", pools.log());
    assert_eq!(pools.run(&repo.path(P[1]), &[]).status.code(), Some(2));
}

#[test]
fn the_script_fails_when_rbd_does() {
    let repo = Repo::new();
    repo.push(P[0], None, &noise(1, 9 << 20)).unwrap();
    let pools = Pools::new();
    let rbd = pools.directory.path().join("rbd");
    fs::write(&rbd, "#!/bin/sh\ncase $1 in create) exit 0 ;; *) exit 1 ;; esac\n").unwrap();
    let output = pools.run(&repo.path(P[0]), &["guests"]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("is incomplete"), "{}", stderr(&output));
}
