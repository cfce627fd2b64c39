//! What verification finds, what it says is still restorable, and that nothing damaged is ever handed out.

use crate::disk::{BLOCK, CLUSTER, GUEST, Repo, noise};
use rackhand_repository as store;
use std::fs;
use std::path::Path;
use store::{DamageKind, Depth, ErrorKind};

const POINTS: [&str; 4] = ["20261128T010000Z", "20261128T020000Z", "20261128T030000Z", "20261128T040000Z"];

/// A full, two differences upon it, and another full.
fn history() -> (Repo, Vec<Vec<u8>>) {
    let repo = Repo::new();
    let mut images = vec![noise(1, 40 * BLOCK)];
    repo.push(POINTS[0], None, &images[0]).unwrap();
    for n in 1..3 {
        let mut image = images[n - 1].clone();
        image[n * 3 * BLOCK..(n * 3 + 2) * BLOCK].copy_from_slice(&noise(n as u64 + 10, 2 * BLOCK));
        repo.push(POINTS[n], Some((POINTS[n - 1], &images[n - 1])), &image).unwrap();
        images.push(image);
    }
    images.push(noise(9, 5 * BLOCK));
    repo.push(POINTS[3], None, &images[3]).unwrap();
    (repo, images)
}

/// Verifies everything and compares what is found and what can be restored; then restores whatever is said to be restorable.
fn found(repo: &Repo, images: &[Vec<u8>], kind: DamageKind, point: &str, restorable: &[&str]) {
    let verified = repo.verify(Depth::All);
    assert!(verified.damages.iter().any(|d| d.kind == kind && d.point == point), "{:#?}", verified.damages);
    let whole: Vec<&str> = verified.restorable.iter().filter(|r| r.restorable).map(|r| r.point.as_str()).collect();
    assert_eq!(whole, restorable, "{:#?}", verified.damages);
    for (point, image) in POINTS.iter().zip(images) {
        match repo.read(point, 0) {
            Ok(read) => assert!(read == *image, "{point} reads back, but not to what it was"),
            Err(error) => {
                assert!(!restorable.contains(point), "{point} is restorable, but {error}");
                assert!(
                    matches!(error.kind, ErrorKind::Damaged | ErrorKind::NotFound | ErrorKind::NewerFormat),
                    "{error:?}"
                );
            }
        }
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_repository_without_damage_has_none() {
    let (repo, _) = history();
    for depth in [Depth::Structure, Depth::Sample(5.0), Depth::All] {
        let verified = repo.verify(depth);
        assert_eq!(verified.damages, []);
        assert!(verified.restorable.len() == 4 && verified.restorable.iter().all(|r| r.restorable));
        assert_eq!(verified.frames > 0, depth != Depth::Structure);
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_point_is_found() {
    let (repo, images) = history();
    let files: Vec<_> = fs::read_dir(repo.path(POINTS[1])).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 8);
    for path in files {
        let whole = fs::read(&path).unwrap();
        for at in [0, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
            flip(&path, at);
            let verified = repo.verify(Depth::All);
            assert!(!verified.damages.is_empty(), "{} at {at}", path.display());
            assert!(verified.damages.iter().all(|d| d.point == POINTS[1]), "{:#?}", verified.damages);
            let restorable: Vec<_> = verified.restorable.iter().map(|r| r.restorable).collect();
            assert_eq!(restorable, [true, false, false, true]);
            for (point, image) in POINTS.iter().zip(&images) {
                assert!(repo.read(point, 0).map_or(true, |read| read == *image), "{} at {at}", path.display());
            }
            fs::write(&path, &whole).unwrap();
        }
    }
    assert_eq!(repo.verify(Depth::All).damages, []);
}

#[test]
fn a_flipped_bit_in_data_is_named_with_its_place() {
    let (repo, images) = history();
    let path = repo.path(POINTS[0]).join("disk-0.rbdiff.zst");
    flip(&path, fs::read(&path).unwrap().len() / 2);
    found(&repo, &images, DamageKind::Changed, POINTS[0], &[POINTS[3]]);
    let damage = repo.verify(Depth::All).damages.remove(0);
    assert!(damage.message.contains("image offset 0 to 163840"), "{}", damage.message);
}

#[test]
fn a_truncated_and_a_lost_file_are_found_without_reading_data() {
    let (repo, images) = history();
    let path = repo.path(POINTS[2]).join("disk-0.rbdiff.zst");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    found(&repo, &images, DamageKind::WrongLength, POINTS[2], &[POINTS[0], POINTS[1], POINTS[3]]);
    let listed = store::list(&repo.selection()).unwrap();
    assert!(listed.points[2].problem.as_ref().unwrap().contains("disk-0.rbdiff.zst"));
    assert_eq!(listed.points[1].problem, None);
    fs::remove_file(&path).unwrap();
    assert_eq!(repo.verify(Depth::Structure).damages[0].kind, DamageKind::MissingFile);
    found(&repo, &images, DamageKind::MissingFile, POINTS[2], &[POINTS[0], POINTS[1], POINTS[3]]);
}

#[test]
fn a_missing_link_of_the_chain_is_found() {
    let (repo, images) = history();
    fs::remove_dir_all(repo.path(POINTS[1])).unwrap();
    let images = [&images[0], &images[0], &images[2], &images[3]].map(Clone::clone);
    found(&repo, &images, DamageKind::MissingParent, POINTS[2], &[POINTS[0], POINTS[3]]);
    // The next run takes a full: what it would stand on is not whole.
    let error = repo.push("20261128T050000Z", Some((POINTS[2], &images[2])), &images[2]).unwrap_err();
    assert!(error.message.contains(POINTS[1]), "{error}");
}

#[test]
fn swapped_files_and_directories_are_found() {
    let (repo, images) = history();
    let swap = |a: &Path, b: &Path| {
        let aside = repo.directory.path().join("aside");
        fs::rename(a, &aside).unwrap();
        fs::rename(b, a).unwrap();
        fs::rename(&aside, b).unwrap();
    };
    let file = |n: usize, name: &str| repo.path(POINTS[n]).join(name);
    for names in [&["disk-0.rbdiff.zst"][..], &["disk-0.rbdiff.zst", "disk-0.index", "SHA256SUMS"]] {
        names.iter().for_each(|name| swap(&file(1, name), &file(2, name)));
        let verified = repo.verify(Depth::Sample(1.0));
        assert!(verified.damages.iter().any(|d| d.point == POINTS[1]), "{names:?}");
        assert!(repo.read(POINTS[1], 0).is_err() && repo.read(POINTS[2], 0).is_err());
        names.iter().for_each(|name| swap(&file(1, name), &file(2, name)));
    }
    swap(&repo.path(POINTS[1]), &repo.path(POINTS[2]));
    found(&repo, &images, DamageKind::Foreign, POINTS[1], &[POINTS[0], POINTS[3]]);
}

#[test]
fn a_manifest_of_another_guest_is_named() {
    let (repo, images) = history();
    let other = repo.root().join(CLUSTER).join("99999999-2222-4333-8444-555555555555");
    fs::rename(repo.root().join(CLUSTER).join(GUEST), &other).unwrap();
    let verified = repo.verify(Depth::Structure);
    assert_eq!(verified.damages[0].kind, DamageKind::Foreign);
    assert!(verified.damages[0].message.contains(GUEST), "{}", verified.damages[0].message);
    assert!(verified.restorable.iter().all(|r| !r.restorable));
    fs::rename(&other, repo.root().join(CLUSTER).join(GUEST)).unwrap();
    assert!(repo.read(POINTS[2], 0).unwrap() == images[2]);
}

#[test]
fn what_a_newer_version_wrote_is_left_alone_and_named() {
    let (repo, images) = history();
    let path = repo.path(POINTS[1]).join("MANIFEST.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replace("\"format\": 1", "\"format\": 2").replace("rackhand-store 0.1.0", "rackhand-store 9"),
    )
    .unwrap();
    found(&repo, &images, DamageKind::NewerFormat, POINTS[1], &[POINTS[0], POINTS[3]]);
    let message = repo.verify(Depth::Structure).damages.remove(0).message;
    assert!(message.contains("format 2") && message.contains("rackhand-store 9"), "{message}");
    let pruned = repo.prune(store::Keep { last: 1, ..store::Keep::default() }, None);
    assert!(pruned.guests[0].skipped.is_some() && pruned.guests[0].removed.is_empty());
    let mark = repo.root().join("rackhand-repository.json");
    fs::write(&mark, r#"{"format":2,"written_by":"rackhand-store 9"}"#).unwrap();
    let error = store::list(&repo.selection()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NewerFormat);
    assert_eq!(repo.push("20261128T050000Z", None, &images[0]).unwrap_err().kind, ErrorKind::NewerFormat);
}

#[test]
fn a_merge_of_damaged_points_changes_nothing() {
    let (repo, images) = history();
    let path = repo.path(POINTS[1]).join("disk-0.rbdiff.zst");
    let whole = fs::read(&path).unwrap();
    flip(&path, whole.len() / 2);
    assert_eq!(repo.merge(POINTS[2], None).unwrap_err().kind, ErrorKind::Damaged);
    let pruned = repo.prune(store::Keep { last: 2, ..store::Keep::default() }, None);
    assert_eq!(pruned.guests[0].removed, Vec::<String>::new());
    fs::write(&path, whole).unwrap();
    assert_eq!(repo.names(), POINTS);
    for (point, image) in POINTS.iter().zip(&images) {
        assert!(repo.read(point, 0).unwrap() == *image);
    }
}

#[test]
fn a_damage_that_a_verification_found_is_listed_until_another_finds_none() {
    let (repo, images) = history();
    let path = repo.path(POINTS[1]).join("disk-0.rbdiff.zst");
    let whole = fs::read(&path).unwrap();
    flip(&path, whole.len() / 2);
    let problems = || {
        let points = store::list(&repo.selection()).unwrap().points;
        points.into_iter().map(|point| point.problem).collect::<Vec<_>>()
    };
    assert!(problems().iter().all(Option::is_none), "a flipped bit does not show by itself");
    repo.verify(Depth::All);
    let found = problems();
    assert!(found[1].as_ref().unwrap().contains("disk-0.rbdiff.zst"), "{found:?}");
    assert!(found[2].as_ref().unwrap().contains(POINTS[1]) && found[0].is_none() && found[3].is_none(), "{found:?}");
    let error = repo.push("20261128T050000Z", Some((POINTS[2], &images[2])), &images[2]).unwrap_err();
    assert!(error.kind == ErrorKind::Damaged && error.message.contains(POINTS[1]), "{error:?}");
    // Less than all of it proves nothing.
    fs::write(&path, &whole).unwrap();
    assert_eq!(repo.verify(Depth::Sample(1.0)).damages, []);
    assert_eq!(problems(), found);
    assert_eq!(repo.verify(Depth::All).damages, []);
    assert!(problems().iter().all(Option::is_none));
    assert!(!repo.path(&format!(".damaged-{}", POINTS[1])).exists());
}

#[test]
fn a_note_of_damage_goes_with_its_point() {
    let (repo, _) = history();
    fs::remove_file(repo.path(POINTS[2]).join("RESTORE.md")).unwrap();
    repo.verify(Depth::Structure);
    let note = repo.path(&format!(".damaged-{}", POINTS[2]));
    assert!(note.exists());
    let text = fs::read(&note).unwrap();
    repo.merge(POINTS[2], None).unwrap();
    assert!(!note.exists());
    // One that is about an earlier point of the same name says nothing of this one.
    fs::write(&note, text).unwrap();
    assert!(store::list(&repo.selection()).unwrap().points.iter().all(|point| point.problem.is_none()));
    fs::write(&note, "not readable").unwrap();
    assert!(store::list(&repo.selection()).unwrap().points[2].problem.is_some());
    // One whose point was removed by hand goes with the next run.
    fs::remove_dir_all(repo.path(POINTS[2])).unwrap();
    repo.prune(store::Keep { last: 9, ..store::Keep::default() }, None);
    assert!(!note.exists());
}

#[test]
fn a_damaged_point_takes_no_ones_place_and_does_not_stop_a_prune() {
    let (repo, images) = history();
    let last = "20261128T050000Z";
    repo.push(last, Some((POINTS[3], &images[3])), &images[3]).unwrap();
    fs::write(repo.path(last).join("MANIFEST.json"), "{").unwrap();
    // The newest one that is whole stays, and so does what the damaged one stands on; the rest goes.
    let pruned = repo.prune(store::Keep { last: 1, ..store::Keep::default() }, None).guests.remove(0);
    assert_eq!((pruned.skipped, pruned.removed), (None, POINTS[..3].iter().map(|p| (*p).to_owned()).collect()));
    assert!(pruned.removed_bytes > 0 && pruned.kept[1].reasons.contains(&"damaged".to_owned()), "{:?}", pruned.kept);
    assert_eq!(repo.names(), [POINTS[3], last]);
    assert_eq!(repo.read(POINTS[3], 0).unwrap(), images[3]);
    fs::write(repo.path(POINTS[3]).join("MANIFEST.json"), "{").unwrap();
    let pruned = repo.prune(store::Keep { last: 1, ..store::Keep::default() }, None).guests.remove(0);
    assert!(pruned.skipped.unwrap().contains("none of its points is whole") && pruned.removed.is_empty());
}

#[test]
fn what_nothing_stands_on_is_removed_though_a_merge_fails() {
    let (repo, images) = history();
    let last = "20261128T050000Z";
    repo.push(last, Some((POINTS[3], &images[3])), &images[3]).unwrap();
    let path = repo.path(POINTS[3]).join("disk-0.rbdiff.zst");
    let whole = fs::read(&path).unwrap();
    flip(&path, whole.len() / 2);
    let pruned = repo.prune(store::Keep { last: 1, ..store::Keep::default() }, None).guests.remove(0);
    assert_eq!(pruned.removed, POINTS[..3]);
    assert!(pruned.skipped.unwrap().contains("disk-0.rbdiff.zst") && pruned.merged.is_empty());
    assert_eq!(pruned.kept.iter().map(|k| k.point.as_str()).collect::<Vec<_>>(), [POINTS[3], last]);
    fs::write(&path, whole).unwrap();
    assert_eq!(repo.read(last, 0).unwrap(), images[3]);
}

#[test]
fn no_template_is_superfluous_where_a_manifest_cannot_be_read() {
    let (repo, images) = history();
    let stream = crate::disk::chunked(&crate::disk::diff(None, "base", &images[0]));
    let disk = crate::disk::one(images[0].len() as u64, None, "base");
    let mut template = repo.receive("debian@3", None, vec![disk]);
    template.guest = store::TEMPLATES.into();
    repo.send(&template, &stream).unwrap();
    let unused = || repo.prune(store::Keep { last: 9, ..store::Keep::default() }, None).unused_templates;
    assert_eq!(unused(), [format!("{CLUSTER}/templates/debian@3")]);
    fs::write(repo.path(POINTS[1]).join("MANIFEST.json"), "{").unwrap();
    assert_eq!(unused(), Vec::<String>::new());
}

#[test]
fn a_prune_during_a_verification_is_no_damage() {
    let (repo, images) = history();
    for n in 5..9 {
        repo.push(&format!("20261128T0{n}0000Z"), Some((POINTS[2], &images[2])), &images[2]).unwrap();
    }
    let once = std::sync::Once::new();
    let request = store::Verify { selection: repo.selection(), point: None, depth: Depth::All, seed: Some(1) };
    let prune = |_| {
        once.call_once(|| drop(repo.prune(store::Keep { last: 1, ..store::Keep::default() }, None)));
        Ok(())
    };
    let verified = store::verify(&request, &prune).unwrap();
    assert_eq!(verified.damages, []);
    let restorable: Vec<_> = verified.restorable.iter().map(|r| (r.point.as_str(), r.restorable)).collect();
    assert_eq!(restorable, [("20261128T080000Z", true)]);
    assert_eq!(verified.points, 1);
}
