//! The files that configure a host's network, read as far as a bridge depends on them.

use crate::playbook::resource::Bridge;
use std::collections::BTreeMap;
use std::fmt;

/// Files by path.
pub(super) type Files = BTreeMap<String, String>;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Path of the file.
    pub file: String,
    /// Number of the line, from 1.
    pub line: usize,
}

impl Place {
    fn new(file: &str, line: usize) -> Self {
        Place { file: file.to_owned(), line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}", self.file, self.line)
    }
}

/// An `iface` stanza of ifupdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stanza {
    /// Where it begins.
    pub place: Place,
    /// The link that it configures.
    pub link: String,
    /// `inet`, `inet6`.
    pub family: String,
    /// `static`, `dhcp`, `manual`, `auto`...
    pub method: String,
    /// Its options: place, name, and the rest of the line.
    pub options: Vec<(Place, String, String)>,
}

impl Stanza {
    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<(&Place, &str)> {
        self.options.iter().find(|(_, key, _)| key == name).map(|(place, _, value)| (place, value.as_str()))
    }
}

/// Whether ifupdown reads this file.
fn of_ifupdown(path: &str) -> bool {
    path == "/etc/network/interfaces" || path.starts_with("/etc/network/interfaces.d/")
}

/// All stanzas of ifupdown's files.
pub(super) fn stanzas(files: &Files) -> Vec<Stanza> {
    let mut found = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| of_ifupdown(path)) {
        let mut open: Option<Stanza> = None;
        for (number, line) in text.lines().enumerate() {
            let place = Place::new(path, number + 1);
            let line = line.trim();
            let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            match key {
                "" => {}
                _ if key.starts_with('#') => {}
                "iface" => {
                    found.extend(open.take());
                    let mut words = value.split_whitespace().map(str::to_owned);
                    let mut word = || words.next().unwrap_or_default();
                    let (link, family, method) = (word(), word(), word());
                    open = Some(Stanza { place, link, family, method, options: Vec::new() });
                }
                "auto" | "mapping" | "source" | "source-directory" | "rename" | "template" => found.extend(open.take()),
                _ if key.starts_with("allow-") || key.starts_with("no-") => found.extend(open.take()),
                _ => {
                    if let Some(open) = &mut open {
                        open.options.push((place, key.to_owned(), value.trim().to_owned()));
                    }
                }
            }
        }
        found.extend(open);
    }
    found
}

/// The file of ifupdown that describes the bridge, or the port that it is to be made over: path and content.
pub(super) fn interfaces<'a>(bridge: &Bridge, files: &'a Files) -> Option<(&'a str, &'a str)> {
    let all = stanzas(files);
    let of = |link: &str| all.iter().find(|s| s.link == link).map(|s| s.place.file.clone());
    let path = of(&bridge.name).or_else(|| of(&bridge.uplink))?;
    files.get_key_value(&path).map(|(path, text)| (path.as_str(), text.as_str()))
}

/// The line of a file that is this text, blanks around it left out.
fn line_of(text: &str, fits: impl Fn(&str) -> bool) -> Option<usize> {
    text.lines().position(|line| fits(line.trim())).map(|index| index + 1)
}

/// Where systemd-networkd is told to make a link; our own files are left out.
pub(super) fn netdev(files: &Files, name: &str) -> Option<Place> {
    let foreign = files.iter().filter(|(path, _)| path.ends_with(".netdev") && !path.contains("/05-rackhand-"));
    let mut foreign = foreign.filter(|(path, _)| !path.contains("/04-rackhand-try-"));
    let wanted = format!("Name={name}");
    foreign.find_map(|(path, text)| line_of(text, |line| line == wanted).map(|line| Place::new(path, line)))
}

/// Where netplan describes a link: the line of its key.
fn netplan(files: &Files, name: &str) -> Option<Place> {
    let keys = [format!("{name}:"), format!("\"{name}\":"), format!("'{name}':")];
    let is_key = |line: &str| keys.iter().any(|key| line.starts_with(key.as_str()));
    let mut all = files.iter().filter(|(path, _)| path.starts_with("/etc/netplan/"));
    all.find_map(|(path, text)| line_of(text, is_key).map(|line| Place::new(path, line)))
}

/// Where a link is made or configured, as an operator would look for it.
pub(super) fn place(files: &Files, name: &str) -> Option<Place> {
    let network = |name: &str| {
        let wanted = format!("Name={name}");
        let mut all = files.iter().filter(|(path, _)| path.ends_with(".network") && !path.contains("-rackhand-"));
        all.find_map(|(path, text)| line_of(text, |line| line == wanted).map(|line| Place::new(path, line)))
    };
    let stanza = || stanzas(files).into_iter().find(|s| s.link == name).map(|s| s.place);
    netplan(files, name).or_else(|| netdev(files, name)).or_else(stanza).or_else(|| network(name))
}

/// The settings of a file in systemd's format: place, section, key and value.
pub(super) fn settings(path: &str, text: &str) -> Vec<(Place, String, String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            found.push((Place::new(path, number + 1), section.clone(), key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

/// Drop-ins of others to a network file.
pub(super) fn drop_ins<'a>(files: &'a Files, of: &str) -> impl Iterator<Item = &'a str> {
    let directory = format!("/{}.d/", of.rsplit('/').next().unwrap_or(of));
    let foreign = |path: &str| !path.rsplit('/').next().is_some_and(|file| file.starts_with("rackhand-"));
    files.keys().map(String::as_str).filter(move |path| path.contains(&directory) && foreign(path))
}
