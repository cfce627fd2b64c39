//! The sections of a script's transcript: the reader that every look at a host shares.

use std::collections::BTreeMap;

/// The script's sections, each the lines below its mark.
pub(super) type Sections<'a> = BTreeMap<&'a str, Vec<&'a str>>;
/// Files by their paths, each the lines that matter.
pub(super) type Files<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// Cuts a transcript into its sections.
pub(super) fn split(text: &str) -> Sections<'_> {
    let mut sections = Sections::new();
    let mut name = "";
    for line in text.lines() {
        if let Some(mark) = line.strip_prefix("@@ ") {
            name = mark.split(' ').next().unwrap_or_default();
            sections.entry(name).or_default();
        } else {
            sections.entry(name).or_default().push(line);
        }
    }
    sections
}

/// The lines of a section, none where it is missing.
pub(super) fn lines<'a, 'b>(sections: &'b Sections<'a>, name: &str) -> &'b [&'a str] {
    sections.get(name).map_or(&[], Vec::as_slice)
}

/// The lines of each file, from `PATH:LINE`.
pub(super) fn files<'a>(lines: &[&'a str]) -> Files<'a> {
    let mut files = Files::new();
    for (path, line) in lines.iter().filter_map(|line| line.split_once(':')) {
        files.entry(path).or_default().push(line);
    }
    files
}

/// All lines of a file, none where there is no such file.
pub(super) fn all<'a, 'b>(files: &'b Files<'a>, path: &str) -> &'b [&'a str] {
    files.get(path).map_or(&[], Vec::as_slice)
}

/// The first line of a file.
pub(super) fn first<'a>(files: &Files<'a>, path: &str) -> Option<&'a str> {
    all(files, path).first().copied()
}

/// Names and their values, the first of each.
pub(super) fn pairs<'a>(lines: &[&'a str], separator: char) -> BTreeMap<&'a str, &'a str> {
    let mut map = BTreeMap::new();
    for (name, value) in lines.iter().filter_map(|line| line.split_once(separator)) {
        map.entry(name.trim_end()).or_insert(value);
    }
    map
}
