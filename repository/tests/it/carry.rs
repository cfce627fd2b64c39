//! What a new point may stand on, and who may read it.

use crate::disk::{BLOCK, CLUSTER, GUEST, Repo, chunked, diff, noise, one};
use rackhand_repository as store;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use store::{CHAIN_LIMIT, DamageKind, Depth, ErrorKind, ReceiveDisk, TEMPLATES};

const P: [&str; 4] = ["20261128T010000Z", "20261128T020000Z", "20261128T030000Z", "20261128T040000Z"];

/// Everything below a directory that someone else may read.
fn open_to_others(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
        let wanted = if entry.path().is_dir() { 0o700 } else { 0o600 };
        if mode != wanted {
            found.push(format!("{} {mode:o}", entry.path().display()));
        }
        if entry.path().is_dir() {
            found.extend(open_to_others(&entry.path()));
        }
    }
    found
}

#[test]
fn only_its_owner_reads_a_repository() {
    let repo = Repo::new();
    let image = noise(1, 3 * BLOCK);
    repo.push(P[0], None, &image).unwrap();
    repo.push(P[1], Some((P[0], &image)), &image).unwrap();
    repo.merge(P[1], None).unwrap();
    assert_eq!(open_to_others(repo.directory.path()), Vec::<String>::new());
    // What an earlier version left open is closed by the next run; what was given to the group stays so.
    let guest = repo.root().join(CLUSTER).join(GUEST);
    fs::set_permissions(guest.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    repo.push(P[2], Some((P[1], &image)), &image).unwrap();
    assert_eq!(fs::metadata(guest.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o750);
    let to = repo.directory.path().join("disk");
    let request = store::ReadDisk { at: repo.at(P[2]), disk: 0, to: Some(to.clone()), without_snapshot: false };
    store::read_disk(&request, &mut Vec::new(), &|_| Ok(())).unwrap();
    assert_eq!(fs::metadata(to).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_chain_has_a_longest_length_and_is_read_with_few_descriptors() {
    let repo = Repo::new();
    let image = noise(1, BLOCK);
    let name = |n: usize| format!("20261128T{:02}{:02}00Z", n / 60, n % 60);
    repo.push(&name(0), None, &image).unwrap();
    for n in 1..CHAIN_LIMIT {
        let last = repo.push(&name(n), Some((&name(n - 1), &image)), &image).unwrap();
        assert_eq!(last.point.may_carry(), n + 1 < CHAIN_LIMIT);
    }
    let (last, next) = (name(CHAIN_LIMIT - 1), name(CHAIN_LIMIT));
    let refused = repo.push(&next, Some((&last, &image)), &image).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::ChainTooLong);
    assert!(refused.message.contains("must be a full"), "{refused}");
    // A chain that is as long as one may be is read by a program that begins with room for 64 files.
    let read = store::ReadDisk { at: repo.at(&last), disk: 0, to: None, without_snapshot: false };
    let script = r#"ulimit -Sn 64; exec "$0""#;
    let mut child = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_rackhand-store")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let line = serde_json::to_string(&store::Request::Read(read)).unwrap() + "\n";
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), line.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut restored = Vec::new();
    crate::disk::apply(&output.stdout, &mut restored);
    assert_eq!(restored, image);
    // A merge makes room.
    repo.merge(&last, None).unwrap();
    repo.push(&next, Some((&last, &image)), &image).unwrap();
}

#[test]
fn a_difference_of_another_image_is_refused_though_its_snapshots_have_the_same_names() {
    let repo = Repo::new();
    let images = [noise(1, 2 * BLOCK), noise(2, 2 * BLOCK)];
    let disk = |n: usize, image: usize, from: Option<&str>, to: &str| {
        let disk = one(2 * BLOCK as u64, from.map(str::to_owned), to);
        ReceiveDisk { index: n as u32, image: format!("guest.web-1.disk{image}"), ..disk }
    };
    let fulls = images.iter().flat_map(|image| chunked(&diff(None, "s0", image))).collect::<Vec<u8>>();
    repo.send(&repo.receive(P[0], None, vec![disk(0, 0, None, "s0"), disk(1, 1, None, "s0")]), &fulls).unwrap();
    // The first disk was taken out of the guest: the second one is the first now.
    let difference = chunked(&diff(Some(("s0", &images[1])), "s1", &images[1]));
    let swapped = repo.receive(P[1], Some(P[0]), vec![disk(0, 1, Some("s0"), "s1")]);
    let refused = repo.send(&swapped, &difference).unwrap_err();
    assert!(refused.message.contains("disk1") && refused.message.contains("disk0"), "{refused}");
    // As a full it is welcome.
    let full = chunked(&diff(None, "s1", &images[1]));
    repo.send(&repo.receive(P[1], Some(P[0]), vec![disk(0, 1, None, "s1")]), &full).unwrap();
    assert_eq!(repo.read(P[1], 0).unwrap(), images[1]);
    // One that was stored by another program is neither read nor merged, and is found.
    let same = repo.receive(P[2], Some(P[1]), vec![disk(0, 1, Some("s1"), "s2")]);
    repo.send(&same, &chunked(&diff(Some(("s1", &images[1])), "s2", &images[1]))).unwrap();
    let manifest = repo.path(P[2]).join("MANIFEST.json");
    let text = fs::read_to_string(&manifest).unwrap().replace("guest.web-1.disk1", "guest.web-1.disk0");
    fs::write(&manifest, &text).unwrap();
    let script = "sha256sum MANIFEST.json; grep -v MANIFEST SHA256SUMS";
    let sums = Command::new("sh").args(["-c", script]).current_dir(repo.path(P[2])).output().unwrap().stdout;
    fs::write(repo.path(P[2]).join("SHA256SUMS"), sums).unwrap();
    assert_eq!(repo.read(P[2], 0).unwrap_err().kind, ErrorKind::Damaged);
    assert_eq!(repo.merge(P[2], None).unwrap_err().kind, ErrorKind::Damaged);
    assert_eq!(repo.verify(Depth::Structure).damages[0].kind, DamageKind::BrokenChain);
}

#[test]
fn nothing_is_stored_upon_what_is_damaged() {
    let repo = Repo::new();
    let image = noise(1, 40 * BLOCK);
    let mut template = repo.receive("debian@3", None, vec![one(image.len() as u64, None, "base")]);
    template.guest = TEMPLATES.into();
    repo.send(&template, &chunked(&diff(None, "base", &image))).unwrap();
    let clone = ReceiveDisk { template: Some("debian@3".into()), ..one(image.len() as u64, None, "s0") };
    // What a clone wrote, its parent left out: no snapshot that it begins at.
    let mut stream = diff(Some(("x", &image)), "s0", &image);
    stream.drain(12..18);
    let stream = chunked(&stream);
    repo.send(&repo.receive(P[0], None, vec![clone.clone()]), &stream).unwrap();
    let next = |point: &str| {
        let disk = one(image.len() as u64, Some("s0".into()), "s1");
        repo.send(&repo.receive(point, Some(P[0]), vec![disk]), &chunked(&diff(Some(("s0", &image)), "s1", &image)))
    };
    next(P[1]).unwrap();
    let file = repo.root().join(CLUSTER).join(TEMPLATES).join("debian@3/disk-0.rbdiff.zst");
    for (file, needle) in [(file, "template debian@3"), (repo.path(P[0]).join("disk-0.rbdiff.zst"), P[0])] {
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[1..]).unwrap();
        let error = next(P[2]).unwrap_err();
        assert!(error.kind == ErrorKind::Damaged && error.message.contains(needle), "{error:?}");
        let listed = store::list(&repo.selection()).unwrap();
        assert!(listed.points.iter().all(|point| point.problem.is_some() && !point.may_carry()));
        if needle.starts_with("template") {
            let error = repo.send(&repo.receive(P[3], None, vec![clone.clone()]), &stream).unwrap_err();
            assert!(error.message.contains(needle), "{error}");
        }
        fs::write(&file, whole).unwrap();
    }
    next(P[2]).unwrap();
}

#[test]
fn a_point_is_not_older_than_what_it_stands_on() {
    let repo = Repo::new();
    let image = noise(1, BLOCK);
    repo.push(P[1], None, &image).unwrap();
    let refused = repo.push(P[0], Some((P[1], &image)), &image).unwrap_err();
    assert!(refused.kind == ErrorKind::Request && refused.message.contains("older"), "{refused}");
    repo.push(&format!("{}-2", P[1]), Some((P[1], &image)), &image).unwrap();
}

#[test]
fn a_point_that_is_being_replaced_is_read_under_its_other_name() {
    let repo = Repo::new();
    let image = noise(1, 3 * BLOCK);
    repo.push(P[0], None, &image).unwrap();
    repo.push(P[1], Some((P[0], &image)), &image).unwrap();
    // Between the two renames, on a file system that cannot exchange two names.
    let aside = repo.path(&format!(".replaced-{}", P[0]));
    fs::rename(repo.path(P[0]), &aside).unwrap();
    assert_eq!(repo.names(), P[..2]);
    assert!(store::list(&repo.selection()).unwrap().points.iter().all(|point| point.problem.is_none()));
    assert_eq!(repo.verify(Depth::All).damages, []);
    assert_eq!((repo.read(P[0], 0).unwrap(), repo.read(P[1], 0).unwrap()), (image.clone(), image.clone()));
    assert_eq!(store::show(&repo.at(P[0])).unwrap().directory, aside);
    let again = repo.push(P[0], None, &image).unwrap_err();
    assert_eq!(again.kind, ErrorKind::Exists);
    assert!(repo.path(P[0]).is_dir() && !aside.exists());
}
