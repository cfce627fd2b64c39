//! An image as plain bytes, its diff streams, and a repository in a temporary directory.

use rackhand_repository as store;
use std::io::{BufReader, Write};
use std::path::PathBuf;
use store::{
    Consistency, Done, Error, Keep, Merge, PointPath, Prune, Pruned, ReadDisk, Receive, ReceiveDisk, Received, Request,
    Selection, Verify,
};

pub const CLUSTER: &str = "8f1f1f6a-0000-4000-8000-000000000001";
pub const GUEST: &str = "11111111-2222-4333-8444-555555555555";
/// Blocks in which images of tests change.
pub const BLOCK: usize = 4096;

/// A diff v1 stream, written independently of the crate: from `old` (nothing for a full) to `new`.
pub fn diff(old: Option<(&str, &[u8])>, to: &str, new: &[u8]) -> Vec<u8> {
    let mut out = b"rbd diff v1\n".to_vec();
    let mut name = |tag: u8, name: &str| {
        out.push(tag);
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
    };
    if let Some((from, _)) = old {
        name(b'f', from);
    }
    name(b't', to);
    out.push(b's');
    out.extend_from_slice(&(new.len() as u64).to_le_bytes());
    let mut before = old.map_or(&[][..], |(_, bytes)| bytes).to_vec();
    before.resize(before.len().max(new.len()), 0);
    let mut offset = 0;
    while offset < new.len() {
        let end = (offset + BLOCK).min(new.len());
        let block = &new[offset..end];
        if before[offset..end] != *block {
            let zero = block.iter().all(|b| *b == 0);
            out.push(if zero { b'z' } else { b'w' });
            out.extend_from_slice(&(offset as u64).to_le_bytes());
            out.extend_from_slice(&((end - offset) as u64).to_le_bytes());
            if !zero {
                out.extend_from_slice(block);
            }
        }
        offset = end;
    }
    out.push(b'e');
    out
}

/// What an image holds once a stream was applied to it; by the rules of `rbd import-diff`.
pub fn apply(stream: &[u8], image: &mut Vec<u8>) {
    let mut rest = stream.strip_prefix(b"rbd diff v1\n").unwrap();
    let mut take = |count: usize| {
        let (head, tail) = rest.split_at(count);
        rest = tail;
        head.to_vec()
    };
    loop {
        let tag = take(1)[0];
        match tag {
            b'f' | b't' => {
                let length = u32::from_le_bytes(take(4).try_into().unwrap());
                take(length as usize);
            }
            b's' => image.resize(u64::from_le_bytes(take(8).try_into().unwrap()) as usize, 0),
            b'w' | b'z' => {
                let offset = u64::from_le_bytes(take(8).try_into().unwrap()) as usize;
                let length = u64::from_le_bytes(take(8).try_into().unwrap()) as usize;
                let bytes = if tag == b'w' { take(length) } else { vec![0; length] };
                image[offset..offset + length].copy_from_slice(&bytes);
            }
            b'e' => return,
            other => panic!("record {other}"),
        }
    }
}

pub fn chunked(stream: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in stream.chunks(100_000) {
        out.extend_from_slice(&(chunk.len() as u32).to_be_bytes());
        out.extend_from_slice(chunk);
    }
    out.extend_from_slice(&[0; 4]);
    out
}

/// Bytes that compress a little, other ones for each seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state as u8) & 0x3f | 1
    };
    (0..length).map(|_| next()).collect()
}

pub struct Repo {
    pub directory: tempfile::TempDir,
}

impl Repo {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("repo")
    }

    pub fn path(&self, point: &str) -> PathBuf {
        self.root().join(CLUSTER).join(GUEST).join(point)
    }

    pub fn receive(&self, point: &str, parent: Option<&str>, disks: Vec<ReceiveDisk>) -> Receive {
        Receive {
            repository: self.root(),
            cluster: CLUSTER.into(),
            guest: GUEST.into(),
            name: "web-1".into(),
            point: point.into(),
            parent: parent.map(str::to_owned),
            definition: serde_json::json!({"name": "web-1"}),
            consistency: Consistency::Agent,
            disks,
            reader: None,
            parallel: None,
            owner: None,
        }
    }

    /// Stores disk 0 from `old` to `new`, each a snapshot's name and its bytes.
    pub fn push(&self, point: &str, parent: Option<(&str, &[u8])>, new: &[u8]) -> Result<Received, Error> {
        let from = parent.map(|(name, bytes)| (format!("s-{name}"), bytes));
        let to = format!("s-{point}");
        let stream = diff(from.as_ref().map(|(name, bytes)| (name.as_str(), *bytes)), &to, new);
        let disk = one(new.len() as u64, from.map(|(name, _)| name), &to);
        self.send(&self.receive(point, parent.map(|(name, _)| name), vec![disk]), &chunked(&stream))
    }

    pub fn send(&self, request: &Receive, payload: &[u8]) -> Result<Received, Error> {
        store::receive(request, &mut BufReader::new(payload), &|_| Ok(()))
    }

    pub fn at(&self, point: &str) -> PointPath {
        PointPath { repository: self.root(), cluster: CLUSTER.into(), guest: GUEST.into(), point: point.into() }
    }

    pub fn selection(&self) -> Selection {
        Selection { repository: self.root(), cluster: None, guest: None }
    }

    /// The image of a disk at a point.
    pub fn read(&self, point: &str, disk: u32) -> Result<Vec<u8>, Error> {
        let request = ReadDisk { at: self.at(point), disk, to: None, without_snapshot: false };
        let mut stream = Vec::new();
        store::read_disk(&request, &mut stream, &|_| Ok(()))?;
        let mut image = Vec::new();
        apply(&stream, &mut image);
        Ok(image)
    }

    pub fn names(&self) -> Vec<String> {
        store::list(&self.selection()).unwrap().points.into_iter().map(|p| p.point).collect()
    }

    pub fn verify(&self, depth: store::Depth) -> store::Verified {
        let request = Verify { selection: self.selection(), point: None, depth, seed: Some(1) };
        store::verify(&request, &|_| Ok(())).unwrap()
    }

    pub fn merge(&self, point: &str, onto: Option<&str>) -> Result<store::Merged, Error> {
        let request = Merge { at: self.at(point), onto: onto.map(str::to_owned), owner: None };
        store::merge(&request, &|_| Ok(()))
    }

    pub fn prune(&self, keep: Keep, merge_after: Option<usize>) -> Pruned {
        let selection = self.selection();
        let request = Prune { selection, keep, minimum_age: 0, merge_after, dry_run: false, owner: None };
        store::prune(&request, &|_| Ok(())).unwrap()
    }
}

pub fn one(size: u64, from: Option<String>, to: &str) -> ReceiveDisk {
    let image = "guest.web-1.disk0".to_owned();
    ReceiveDisk { index: 0, image, size, from_snapshot: from, to_snapshot: to.into(), template: None }
}

/// Runs the program itself with a request and what follows it.
pub fn program(request: &Request, payload: &[u8]) -> (std::process::ExitStatus, Vec<u8>, String) {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_rackhand-store"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut line = serde_json::to_vec(request).unwrap();
    line.push(b'\n');
    input.write_all(&line).unwrap();
    // A program that refuses does not read the rest.
    let _ = input.write_all(payload);
    drop(input);
    let output = child.wait_with_output().unwrap();
    (output.status, output.stdout, String::from_utf8(output.stderr).unwrap())
}

/// The last line of an answer.
pub fn done(lines: &[u8]) -> Done {
    let text = std::str::from_utf8(lines).unwrap();
    match serde_json::from_str(text.lines().last().unwrap()).unwrap() {
        store::Line::Done(done) => *done,
        other => panic!("{other:?}"),
    }
}
