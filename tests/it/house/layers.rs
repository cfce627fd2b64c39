//! Imports run downwards only, no files of a room import each other, files stay small, and only one file may hold
//! unsafe code.

use super::imports::{circles, logic};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the top down; a room imports only from those below it, and from the ground floor.
const ROOMS: [&str; 13] = [
    "cli",
    "report",
    "watch",
    "movement",
    "backup",
    "guest",
    "provision",
    "playbook",
    "fence",
    "cluster",
    "libvirt",
    "host",
    "ssh",
];
/// What every room may use.
const GROUND: [&str; 5] = ["inventory", "ui", "error", "quote", "fuzz"];
/// Lines a source file may have before it has to be redesigned.
const FILE_LIMIT: usize = 600;

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    found.into_iter().map(|p| (p.strip_prefix(&root).unwrap().to_path_buf(), fs::read_to_string(&p).unwrap())).collect()
}

/// The room a file belongs to: the first component of its path, or its stem at the top level.
fn room(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Rooms named as `crate::ROOM` in a file, outside comments.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines().filter(|l| !l.trim_start().starts_with("//")) {
        for part in line.split("crate::").skip(1) {
            let name: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if !name.is_empty() {
                found.push(name);
            }
        }
    }
    found
}

/// Whether a file of room `from` may import room `to`.
fn allowed(from: &str, to: &str) -> bool {
    if from == to || GROUND.contains(&to) {
        // The ground floor has its own order: inventory over ui over error.
        return !GROUND.contains(&from) || from == to || matches!((from, to), ("inventory", _) | ("ui", "error"));
    }
    match (ROOMS.iter().position(|r| *r == from), ROOMS.iter().position(|r| *r == to)) {
        (Some(from), Some(to)) => from < to,
        // The lab makes the machines that everything else runs on: only the command line knows it.
        _ => from == "cli" && to == "lab",
    }
}

#[test]
fn imports_run_downwards_only() {
    let mut wrong = Vec::new();
    for (path, text) in all_sources() {
        let from = room(&path);
        if from == "lib" || from == "main" {
            continue;
        }
        for to in imports(&text) {
            if !allowed(&from, &to) {
                wrong.push(format!("{}: {from} imports {to}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that run upwards:\n{}", wrong.join("\n"));
}

#[test]
fn the_rule_itself_refuses_what_it_should() {
    assert!(allowed("movement", "guest") && !allowed("guest", "movement"));
    assert!(allowed("cli", "lab") && !allowed("provision", "lab") && !allowed("lab", "ssh"));
    assert!(allowed("inventory", "error") && !allowed("error", "ui"));
}

#[test]
fn no_file_outgrows_its_limit() {
    let long: Vec<String> = all_sources()
        .iter()
        .filter(|(_, text)| text.lines().count() > FILE_LIMIT)
        .map(|(path, text)| format!("{}: {} lines", path.display(), text.lines().count()))
        .collect();
    assert!(long.is_empty(), "files past {FILE_LIMIT} lines:\n{}", long.join("\n"));
}

#[test]
fn unsafe_code_is_in_one_file() {
    let with: Vec<String> = all_sources()
        .iter()
        .filter(|(_, text)| text.lines().any(|l| !l.trim_start().starts_with("//") && l.contains("unsafe ")))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(with.iter().all(|p| p == "libvirt/ffi.rs"), "unsafe outside libvirt/ffi.rs: {with:?}");
}

/// Circles of files that are known, until their owners have cut them; none may be added.
const CIRCLES: &[&[&str]] = &[];

/// `mod.rs` files that hold more than `mod`, `pub use` and documentation, until they are emptied; none may be added.
const LOGIC: &[&str] = &[];

#[test]
fn no_two_files_of_a_room_import_each_other() {
    let found: BTreeSet<Vec<String>> = circles(&all_sources()).into_iter().collect();
    let known: BTreeSet<Vec<String>> =
        CIRCLES.iter().map(|circle| circle.iter().map(|file| (*file).to_owned()).collect()).collect();
    let fits = |circle: &[String]| known.iter().any(|k| circle.iter().all(|file| k.contains(file)));
    let new: Vec<String> = found.iter().filter(|c| !fits(c)).map(|c| c.join(" <-> ")).collect();
    assert!(new.is_empty(), "files that import each other:\n{}", new.join("\n"));
    let stale: Vec<String> = known.difference(&found).map(|c| c.join(" <-> ")).collect();
    assert!(
        stale.is_empty(),
        "no longer circles, take them from the list (what is left: {found:?}):\n{}",
        stale.join("\n")
    );
}

#[test]
fn a_mod_file_holds_no_logic() {
    let sources = all_sources();
    let found: Vec<String> = sources
        .iter()
        .filter(|(path, _)| path.ends_with("mod.rs") && !path.components().any(|part| part.as_os_str() == "tests"))
        .filter_map(|(path, text)| logic(text).map(|line| format!("{}: {line}", path.display())))
        .collect();
    let file = |line: &str| line.split(": ").next().unwrap_or_default().to_owned();
    let new: Vec<&String> = found.iter().filter(|line| !LOGIC.contains(&file(line).as_str())).collect();
    assert!(new.is_empty(), "logic in mod.rs:\n{new:#?}");
    let stale: Vec<&&str> = LOGIC.iter().filter(|known| !found.iter().any(|line| file(line) == **known)).collect();
    assert!(stale.is_empty(), "without logic by now, take them from the list: {stale:?}");
}
