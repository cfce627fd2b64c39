//! Points that are stored, and those that must not be.

use crate::disk::{BLOCK, CLUSTER, GUEST, Repo, chunked, diff, done, noise, one, program};
use rackhand_repository as store;
use std::fs;
use std::process::Command;
use store::{Done, ErrorKind, Reader, ReceiveDisk, Request, TEMPLATES};

const P1: &str = "20261128T010000Z";
const P2: &str = "20261128T020000Z";

/// Nothing but complete points and the lock is there.
fn is_clean(repo: &Repo, points: &[&str]) {
    let guest = repo.root().join(CLUSTER).join(GUEST);
    let mut names: Vec<String> =
        fs::read_dir(guest).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != ".lock");
    names.sort();
    assert_eq!(names, points);
}

#[test]
fn a_full_and_a_difference_read_back_to_the_byte() {
    let repo = Repo::new();
    let mut image = noise(1, 9 * 1024 * 1024 + 512);
    image[1 << 20..3 << 20].fill(0);
    let first = repo.push(P1, None, &image).unwrap();
    assert_eq!(first.manifest.disks[0].data_bytes, image.len() as u64 - (2 << 20));
    assert_eq!(repo.read(P1, 0).unwrap(), image);
    let old = image.clone();
    image[5 * BLOCK..9 * BLOCK].copy_from_slice(&noise(2, 4 * BLOCK));
    image[7 << 20..8 << 20].fill(0);
    image[1 << 20..(1 << 20) + 3].copy_from_slice(b"abc");
    let second = repo.push(P2, Some((P1, &old)), &image).unwrap();
    assert_eq!((second.point.chain, second.point.problem), (2, None));
    assert_eq!(repo.read(P2, 0).unwrap(), image);
    assert_eq!(repo.read(P1, 0).unwrap(), old);
    is_clean(&repo, &[P1, P2]);
}

#[test]
fn stock_tools_read_a_data_file_and_its_frames_end_at_records() {
    let repo = Repo::new();
    let image = noise(3, 11 << 20);
    repo.push(P1, None, &image).unwrap();
    let directory = repo.path(P1);
    let sums = Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(&directory).output().unwrap();
    assert!(sums.status.success(), "{}", String::from_utf8_lossy(&sums.stdout));
    let whole = Command::new("zstd").args(["-dc", "disk-0.rbdiff.zst"]).current_dir(&directory).output().unwrap();
    let mut restored = Vec::new();
    crate::disk::apply(&whole.stdout, &mut restored);
    assert!(restored == image, "zstd -dc gives the stream");
    let index = fs::read_to_string(directory.join("disk-0.index")).unwrap();
    let data = fs::read(directory.join("disk-0.rbdiff.zst")).unwrap();
    let mut offset = 0;
    for line in index.lines().filter(|line| line.starts_with("d ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let (from, length): (usize, usize) = (words[1].parse().unwrap(), words[2].parse().unwrap());
        let frame = zstd::stream::decode_all(&data[from..from + length]).unwrap();
        assert!(frame.len() <= 4 << 20 && frame[0] == b'w', "{line}");
        assert_eq!(words[4].parse::<u64>().unwrap(), offset, "{line}");
        offset = words[5].parse().unwrap();
    }
    assert_eq!(offset, image.len() as u64);
}

#[test]
fn a_stream_that_is_not_what_was_asked_leaves_nothing() {
    let repo = Repo::new();
    let image = noise(1, 3 * BLOCK);
    let good = diff(None, "s", &image);
    let request = |size: u64, to: &str| repo.receive(P1, None, vec![one(size, None, to)]);
    let size = image.len() as u64;
    let cases = [
        (request(size, "other"), chunked(&good), ErrorKind::Stream),
        (request(size + 1, "s"), chunked(&good), ErrorKind::Stream),
        (request(size, "s"), chunked(&good[..good.len() - 1]), ErrorKind::Stream),
        (request(size, "s"), chunked(&[&good[..], b"x"].concat()), ErrorKind::Stream),
        (request(size, "s"), chunked(&good)[..BLOCK].to_vec(), ErrorKind::Stream),
        (request(size, "s"), Vec::new(), ErrorKind::Stream),
    ];
    for (n, (request, payload, kind)) in cases.into_iter().enumerate() {
        let error = repo.send(&request, &payload).unwrap_err();
        assert_eq!((error.kind, error.point.as_deref()), (kind, Some(P1)), "case {n}: {error}");
        is_clean(&repo, &[]);
    }
    repo.send(&request(size, "s"), &chunked(&good)).unwrap();
    assert_eq!(repo.send(&request(size, "s"), &chunked(&good)).unwrap_err().kind, ErrorKind::Exists);
}

#[test]
fn names_cannot_leave_the_repository() {
    let repo = Repo::new();
    for (cluster, guest, point) in [("..", GUEST, P1), (CLUSTER, "a/b", P1), (CLUSTER, GUEST, "../20261128T010000Z")] {
        let mut request = repo.receive(P1, None, vec![one(0, None, "s")]);
        (request.cluster, request.guest, request.point) = (cluster.into(), guest.into(), point.into());
        assert_eq!(repo.send(&request, &[]).unwrap_err().kind, ErrorKind::Request);
    }
    assert!(!repo.root().exists());
}

#[test]
fn a_difference_must_begin_where_its_parent_ends() {
    let repo = Repo::new();
    let image = noise(1, 2 * BLOCK);
    repo.push(P1, None, &image).unwrap();
    let stream = diff(Some(("elsewhere", &image)), "s2", &image);
    let disk = one(image.len() as u64, Some("elsewhere".into()), "s2");
    let error = repo.send(&repo.receive(P2, Some(P1), vec![disk.clone()]), &chunked(&stream)).unwrap_err();
    assert!(error.message.contains("elsewhere"), "{error}");
    let error = repo.send(&repo.receive(P2, Some("20250101T000000Z"), vec![disk]), &chunked(&stream)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    is_clean(&repo, &[P1]);
}

#[test]
fn what_dead_runs_left_goes_with_the_next_and_nothing_else_does() {
    let repo = Repo::new();
    let image = noise(1, BLOCK);
    repo.push(P1, None, &image).unwrap();
    let guest = repo.root().join(CLUSTER).join(GUEST);
    fs::create_dir(guest.join(".partial-20261128T013000Z")).unwrap();
    fs::write(guest.join(".partial-20261128T013000Z/disk-0.rbdiff.zst"), "half").unwrap();
    // As if it had died between the two renames of a replacement.
    fs::rename(guest.join(P1), guest.join(format!(".replaced-{P1}"))).unwrap();
    fs::write(guest.join("notes.txt"), "of an operator").unwrap();
    let received = repo.push(P2, None, &image).unwrap();
    assert_eq!(received.swept, [".partial-20261128T013000Z"]);
    assert_eq!(repo.read(P1, 0).unwrap(), image);
    assert!(guest.join("notes.txt").exists());
}

fn with_reader(repo: &Repo, script: &str, disks: Vec<ReceiveDisk>) -> Result<store::Received, store::Error> {
    let mut request = repo.receive(P1, None, disks);
    let argv = ["sh", "-c", script, "reader", "{image}", "{to}"].map(str::to_owned).to_vec();
    request.reader =
        Some(Reader { argv, env: [("STREAMS".into(), repo.directory.path().display().to_string())].into() });
    repo.send(&request, &[])
}

#[test]
fn a_reader_is_started_for_each_disk_and_must_end_well() {
    let repo = Repo::new();
    let images = [noise(1, 5 << 20), noise(2, 3 * BLOCK), vec![0; 7 * BLOCK]];
    let mut disks = Vec::new();
    for (n, image) in images.iter().enumerate() {
        fs::write(repo.directory.path().join(format!("i{n}")), diff(None, "s", image)).unwrap();
        let index = n as u32;
        disks.push(ReceiveDisk { index, image: format!("i{n}"), ..one(image.len() as u64, None, "s") });
    }
    let failed = with_reader(&repo, r#"cat "$STREAMS/$1"; echo "no keyring" >&2; exit 3"#, disks.clone()).unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Reader);
    assert!(failed.message.contains("no keyring"), "{failed}");
    let killed = with_reader(&repo, r#"head -c 5000 "$STREAMS/$1"; kill -9 $$"#, disks.clone()).unwrap_err();
    assert_eq!(killed.kind, ErrorKind::Reader);
    let cut = with_reader(&repo, r#"head -c 5000 "$STREAMS/$1""#, disks.clone()).unwrap_err();
    assert_eq!(cut.kind, ErrorKind::Stream);
    // It would write for ever; whoever reads it ends it.
    let endless = with_reader(&repo, r#"cat "$STREAMS/$1"; yes"#, disks.clone()).unwrap_err();
    assert_eq!(endless.kind, ErrorKind::Stream);
    is_clean(&repo, &[]);
    with_reader(&repo, r#"cat "$STREAMS/$1""#, disks).unwrap();
    for (n, image) in images.iter().enumerate() {
        assert!(repo.read(P1, n as u32).unwrap() == *image, "disk {n}");
    }
}

#[test]
fn a_template_is_stored_once_and_lies_below_what_the_guest_wrote() {
    let repo = Repo::new();
    let base = noise(4, 20 * BLOCK);
    let mut template = repo.receive("debian@3", None, vec![one(base.len() as u64, None, "base")]);
    template.guest = TEMPLATES.into();
    repo.send(&template, &chunked(&diff(None, "base", &base))).unwrap();
    let mut image = base.clone();
    image.resize(30 * BLOCK, 0);
    image[BLOCK..2 * BLOCK].fill(0);
    image[25 * BLOCK..26 * BLOCK].copy_from_slice(&noise(5, BLOCK));
    let mut over = base.clone();
    over.resize(30 * BLOCK, 0);
    // What a clone wrote, its parent left out: no snapshot that it begins at.
    let mut stream = diff(Some(("x", &over)), "s", &image);
    stream.drain(12..18);
    let disk = ReceiveDisk { template: Some("debian@3".into()), ..one(image.len() as u64, None, "s") };
    let missing = ReceiveDisk { template: Some("debian@4".into()), ..disk.clone() };
    assert_eq!(repo.send(&repo.receive(P1, None, vec![missing]), &[]).unwrap_err().kind, ErrorKind::NotFound);
    let received = repo.send(&repo.receive(P1, None, vec![disk]), &chunked(&stream)).unwrap();
    assert_eq!(received.manifest.disks[0].data_bytes, BLOCK as u64);
    assert!(repo.read(P1, 0).unwrap() == image);
    let listed = store::list(&repo.selection()).unwrap();
    assert_eq!((listed.points.len(), listed.templates.len()), (1, 1));
}

#[test]
fn the_program_answers_in_lines_and_its_status_says_whether_it_is_done() {
    let repo = Repo::new();
    let image = noise(1, 3 << 20);
    let request = Request::Receive(repo.receive(P1, None, vec![one(image.len() as u64, None, "s")]));
    let payload = chunked(&diff(None, "s", &image));
    let (status, output, _) = program(&request, &payload[..1000]);
    assert!(!status.success() && String::from_utf8_lossy(&output).contains(r#""kind":"stream""#));
    let (status, output, stderr) = program(&request, &payload);
    assert!(status.success(), "{stderr}");
    assert!(matches!(done(&output), Done::Receive(received) if received.point.point == P1));
    let read = store::ReadDisk { at: repo.at(P1), disk: 0, to: None, without_snapshot: true };
    let (status, stream, lines) = program(&Request::Read(read), &[]);
    assert!(status.success());
    assert!(matches!(done(lines.as_bytes()), Done::Read(read) if read.bytes == stream.len() as u64));
    let mut restored = Vec::new();
    crate::disk::apply(&stream, &mut restored);
    assert!(restored == image);
    let (status, output, _) = program(&Request::Show(repo.at("20200101T000000Z")), &[]);
    assert!(!status.success() && String::from_utf8_lossy(&output).contains(r#""kind":"not_found""#));
}

#[test]
fn a_program_that_was_killed_leaves_no_point_and_the_next_run_works() {
    let repo = Repo::new();
    let image = noise(1, 9 << 20);
    let path = |name: &str| repo.directory.path().join(name);
    fs::write(path("stream"), diff(None, "s", &image)).unwrap();
    let mut request = repo.receive(P1, None, vec![one(image.len() as u64, None, "s")]);
    // It ends by itself once nothing reads it.
    let script = r#"head -c 5000000 "$1/stream"; touch "$1/reached"; while :; do echo; sleep 0.1; done"#;
    let argv = ["sh", "-c", script, "reader"].map(str::to_owned).to_vec();
    let argv = [argv, vec![repo.directory.path().display().to_string()]].concat();
    request.reader = Some(Reader { argv, env: [].into() });
    let mut child = Command::new(env!("CARGO_BIN_EXE_rackhand-store"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut line = serde_json::to_vec(&Request::Receive(request.clone())).unwrap();
    line.push(b'\n');
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), &line).unwrap();
    while !path("reached").exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    assert_eq!(repo.send(&request, &[]).unwrap_err().kind, ErrorKind::Locked);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(repo.names(), Vec::<String>::new());
    request.reader = None;
    let received = repo.send(&request, &chunked(&diff(None, "s", &image))).unwrap();
    assert_eq!(received.swept, [format!(".partial-{P1}")]);
    assert!(repo.read(P1, 0).unwrap() == image);
}
