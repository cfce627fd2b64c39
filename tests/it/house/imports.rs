//! Which file of a room imports which, read from the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module: its file, and what it re-exports under a name.
#[derive(Default)]
struct Module {
    file: String,
    reexports: Vec<(String, Vec<String>)>,
}

type Modules = BTreeMap<Vec<String>, Module>;

/// Circles of files within a room, each with its files in order.
pub fn circles(sources: &[(PathBuf, String)]) -> Vec<Vec<String>> {
    let mut modules = Modules::new();
    let mut paths = Vec::new();
    for (path, text) in sources.iter().filter(|(path, _)| !is_test(path)) {
        let module = module_of(path);
        let text = code(text);
        let used = paths_in(&text, &module);
        let reexports = used.iter().filter(|u| u.public).map(|u| (u.name.clone(), u.path.clone())).collect();
        modules.insert(module.clone(), Module { file: path.display().to_string(), reexports });
        paths.push((module, used));
    }
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, used) in &paths {
        let from = &modules[module].file;
        // What a file offers again under its own name is not something it needs.
        let reexports_only = from.ends_with("mod.rs");
        for one in used.iter().filter(|u| !(u.public && reexports_only)) {
            let Some(to) = resolve(&modules, &one.path, 0) else { continue };
            if to != *from && Path::new(&to).components().next() == Path::new(from).components().next() {
                imports.entry(from.clone()).or_default().insert(to);
            }
        }
    }
    let reach = |from: &String| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(file) = open.pop() {
            for to in imports.get(&file).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    open.push(to.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = imports.keys().map(|file| (file, reach(file))).collect();
    let mut found = BTreeSet::new();
    for (file, far) in &reached {
        if far.contains(*file) {
            let circle = far.iter().filter(|to| reached.get(to).is_some_and(|back| back.contains(*file)));
            found.insert(circle.cloned().collect::<Vec<String>>());
        }
    }
    found.into_iter().collect()
}

/// The first line of a `mod.rs` that is not a declaration, a re-export, an attribute or documentation.
pub fn logic(text: &str) -> Option<String> {
    let text = code(text);
    let mut rest = text.as_str();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        let line = rest.lines().next().unwrap_or_default();
        if line.starts_with("#[") || line.starts_with("#![") || line.starts_with("//") {
            rest = &rest[line.len()..];
            continue;
        }
        let bare = line.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ").trim_start_matches("pub ");
        let declares = bare.starts_with("mod ") && bare.ends_with(';');
        let reexports = bare != line && bare.starts_with("use ");
        if !declares && !reexports {
            return Some(line.to_owned());
        }
        let end = rest.find(';')?;
        rest = &rest[end + 1..];
    }
}

fn is_test(path: &Path) -> bool {
    path.components().any(|c| c.as_os_str().to_string_lossy().trim_end_matches(".rs").ends_with("tests"))
        || path.file_name().is_some_and(|name| name == "main.rs" || name == "lib.rs")
}

/// The text without comments and without its module of tests.
fn code(text: &str) -> String {
    let tests = text
        .match_indices("#[cfg(test)]\nmod ")
        .find(|(at, _)| text[*at..].lines().nth(1).is_some_and(|line| line.ends_with('{')));
    let end = tests.map_or(text.len(), |(at, _)| at);
    let lines = text[..end].lines().map(|line| match line.trim_start().starts_with("//") {
        true => "",
        false => line.split(" // ").next().unwrap_or_default(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// `inventory/model/units.rs` is `inventory::model::units`.
fn module_of(path: &Path) -> Vec<String> {
    let names = path.with_extension("");
    let mut names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| name == "mod") {
        names.pop();
    }
    names
}

struct Used {
    public: bool,
    name: String,
    path: Vec<String>,
}

/// Every path of this crate that a text names, from the root of the crate.
fn paths_in(text: &str, module: &[String]) -> Vec<Used> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut inline = String::new();
    // `use` statements have braces; what else names a path names one.
    while let Some(at) = rest.find("use ") {
        let head = &rest[..at];
        let begins = head.rsplit('\n').next().unwrap_or_default();
        let statement = matches!(begins.trim(), "" | "pub" | "pub(super)" | "pub(crate)");
        let Some(end) = rest[at..].find(';') else { break };
        if statement {
            inline.push_str(head);
            for (path, name) in flatten(&rest[at + 4..at + end]) {
                found.extend(rooted(&path, module).map(|path| Used { public: begins.contains("pub"), name, path }));
            }
            rest = &rest[at + end..];
        } else {
            inline.push_str(&rest[..at + 4]);
            rest = &rest[at + 4..];
        }
    }
    inline.push_str(rest);
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    for path in inline.split(|c: char| !word(c)).filter(|p| p.contains("::")) {
        let names: Vec<String> = path.split("::").map(str::to_owned).collect();
        let name = names.last().cloned().unwrap_or_default();
        found.extend(rooted(&names, module).map(|path| Used { public: false, name, path }));
    }
    found
}

/// The paths of a tree of `use`, each with the name it gets.
fn flatten(tree: &str) -> Vec<(Vec<String>, String)> {
    let tree = tree.trim();
    let Some((prefix, inner)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut path: Vec<String> = path.trim().split("::").map(str::to_owned).collect();
        if path.len() > 1 && path.last().is_some_and(|name| name == "self") {
            path.pop();
        }
        let name = if alias.is_empty() { path.last().cloned().unwrap_or_default() } else { alias.trim().to_owned() };
        return vec![(path, name)];
    };
    let inner = inner.trim_end().trim_end_matches('}');
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (i, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let parts = parts.into_iter().map(str::trim).filter(|part| !part.is_empty());
    parts.flat_map(|part| flatten(&format!("{prefix}{part}"))).collect()
}

/// A path from the root of the crate; none where it is of another crate.
fn rooted(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let mut base = module.to_vec();
    let mut names = path.iter().map(String::as_str).peekable();
    match *names.peek()? {
        "crate" => base.clear(),
        "self" => {}
        "super" => {}
        // A child of this module.
        _ => return Some([module, path].concat()),
    }
    while let Some(name) = names.next_if(|name| matches!(*name, "crate" | "self" | "super")) {
        if name == "super" {
            base.pop();
        }
    }
    base.extend(names.map(str::to_owned));
    Some(base)
}

/// The file that a path leads to, through re-exports.
fn resolve(modules: &Modules, path: &[String], depth: usize) -> Option<String> {
    let known = (1..=path.len()).rev().find(|n| modules.contains_key(&path[..*n]))?;
    let module = &modules[&path[..known]];
    let Some(name) = path.get(known).filter(|_| depth < 8) else { return Some(module.file.clone()) };
    for (exported, target) in &module.reexports {
        if exported == name {
            let rest = [target, &path[known + 1..]].concat();
            return resolve(modules, &rest, depth + 1);
        }
    }
    Some(module.file.clone())
}

#[test]
fn a_circle_is_found_through_a_re_export_and_through_a_path() {
    let source = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
    let sources = [
        source("room/mod.rs", "mod a;\nmod b;\nmod c;\npub use b::{B, Other};\n"),
        source("room/a.rs", "use super::{B, c};\nfn f() {}\n"),
        source("room/b.rs", "pub struct B;\nfn g() { super::a::f() }\n"),
        source("room/c.rs", "// use super::a;\n#[cfg(test)]\nmod tests { use super::super::a; }\n"),
    ];
    assert_eq!(circles(&sources), [["room/a.rs", "room/b.rs"]]);
    assert_eq!(circles(&[&sources[..1], &sources[2..]].concat()), Vec::<Vec<String>>::new());
}

#[test]
fn logic_is_what_neither_declares_nor_exports() {
    assert_eq!(logic("//! A room.\n\nmod a;\n#[cfg(test)]\nmod tests;\npub use a::{\n    A,\n    B,\n};\n"), None);
    assert_eq!(logic("mod a;\nuse a::A;\nfn f() {}\n").as_deref(), Some("use a::A;"));
    assert_eq!(logic("#[cfg(test)]\nmod tests;\nfn f() {}\n").as_deref(), Some("fn f() {}"));
    assert_eq!(logic("pub struct A;\n").as_deref(), Some("pub struct A;"));
}
