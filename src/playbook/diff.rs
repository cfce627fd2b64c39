//! Wanted against found: pure, so that tables and properties can test it.

use super::bridge;
use super::change::{Action, Change, Findings, Skipped};
use super::resource::{Block, Directory, File, Modules, Resource, Service, Sysctl, User};
use super::state::{FileState, State, sha256};
use super::text::line_diff;
use std::collections::{BTreeMap, BTreeSet};

/// What has to change on a host so that these resources hold. `touched` carries the files that steps before have
/// planned to change, so that services which read them are restarted.
pub fn diff(host: &str, step: &str, resources: &[Resource], state: &State, touched: &mut BTreeSet<String>) -> Findings {
    let mut findings = Findings::default();
    for resource in resources {
        let mut verdict = Verdict::default();
        match resource {
            Resource::Packages(names) => packages(names, state, &mut verdict),
            Resource::File(file) => file_content(file, state, &mut verdict),
            Resource::Block(block) => block_content(block, state, &mut verdict),
            Resource::Directory(directory) => directory_there(directory, state, &mut verdict),
            Resource::Absent(path) => absent(path, state, &mut verdict),
            Resource::Service(service) => service_runs(service, state, touched, &mut verdict),
            Resource::Sysctl(sysctl) => sysctl_set(sysctl, state, &mut verdict),
            Resource::Modules(modules) => modules_loaded(modules, state, &mut verdict),
            Resource::User(user) => user_there(user, state, &mut verdict),
            Resource::Bridge(wanted) => match bridge::diff(wanted, state) {
                Ok(None) => {}
                Ok(Some(found)) => verdict.diff(found.action, found.live, found.files),
                Err(reason) => verdict.refuse(reason.to_string()),
            },
            Resource::Command(command) => {
                let found = state.commands.get(&command.name);
                if found.is_none_or(|(status, _)| *status != 0) {
                    verdict.change(Action::Run, found.map_or("", |(_, shows)| shows.as_str()));
                }
            }
        }
        let object = resource.object();
        if let Some((action, detail, diff)) = verdict.change {
            touched.extend(resource.path().map(str::to_owned));
            let (host, step) = (host.to_owned(), step.to_owned());
            findings.changes.push(Change { host, step, object: object.clone(), action, detail, diff });
        }
        if let Some(reason) = verdict.refused {
            let (host, step) = (host.to_owned(), step.to_owned());
            findings.refused.push(Skipped { host, step, object: object.clone(), reason });
        }
        let mut parts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (part, reason) in verdict.skipped {
            parts.entry(reason).or_default().push(part);
        }
        findings.skipped.extend(parts.into_iter().map(|(reason, parts)| Skipped {
            host: host.to_owned(),
            step: step.to_owned(),
            object: format!("{object}: {}", parts.join(" ")),
            reason,
        }));
    }
    findings
}

/// What is to be done about one resource.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    change: Option<(Action, String, Option<String>)>,
    skipped: Vec<(String, String)>,
    refused: Option<String>,
}

impl Verdict {
    pub(super) fn change(&mut self, action: Action, detail: impl Into<String>) {
        self.change = Some((action, detail.into(), None));
    }

    pub(super) fn diff(&mut self, action: Action, detail: impl Into<String>, diff: String) {
        self.change = Some((action, detail.into(), (!diff.is_empty()).then_some(diff)));
    }

    pub(super) fn refuse(&mut self, reason: impl Into<String>) {
        self.refused = Some(reason.into());
    }

    pub(super) fn skip(&mut self, part: impl Into<String>, reason: impl Into<String>) {
        self.skipped.push((part.into(), reason.into()));
    }
}

fn packages(names: &[String], state: &State, verdict: &mut Verdict) {
    let missing: Vec<&str> = names.iter().filter(|n| !state.installed.contains(*n)).map(String::as_str).collect();
    if !state.broken.is_empty() {
        let broken: Vec<&str> = state.broken.iter().map(String::as_str).collect();
        verdict.change(Action::Change, format!("finish the interrupted installation of {}", broken.join(" ")));
    } else if !missing.is_empty() {
        verdict.change(Action::Create, format!("install {}", missing.join(" ")));
    }
}

/// What differs in who may do what with a path.
fn rights(found: &FileState, mode: &str, owner: &str, group: &str) -> Vec<String> {
    let mode = mode.trim_start_matches('0');
    let pairs = [("mode", found.mode.as_str(), mode), ("owner", &found.owner, owner), ("group", &found.group, group)];
    pairs.iter().filter(|(_, old, new)| old != new).map(|(what, old, new)| format!("{what} {old} -> {new}")).collect()
}

fn file_content(file: &File, state: &State, verdict: &mut Verdict) {
    let Some(found) = state.files.get(&file.path) else {
        let diff = if file.secret { "<secret>".to_owned() } else { line_diff("", file.text()) };
        return verdict.diff(Action::Create, "", diff);
    };
    if found.kind != "regular file" {
        return verdict.change(Action::Change, format!("replace the {} by a file", found.kind));
    }
    let mut details = rights(found, &file.mode, &file.owner, &file.group);
    let differs = found.sha256 != sha256(file.text().as_bytes());
    let mut text = String::new();
    if differs {
        details.push("content".to_owned());
        text = match &found.content {
            _ if file.secret => "<secret>".to_owned(),
            Some(old) => line_diff(&String::from_utf8_lossy(old), file.text()),
            None => String::new(),
        };
    }
    if !details.is_empty() {
        verdict.diff(Action::Change, details.join(", "), text);
    }
}

fn block_content(block: &Block, state: &State, verdict: &mut Verdict) {
    let wanted = block.text();
    match state.blocks.get(&(block.path.clone(), block.name.clone())) {
        Some(found) if *found == wanted => {}
        Some(found) => verdict.diff(Action::Change, "", line_diff(found, &wanted)),
        None => verdict.diff(Action::Create, "", line_diff("", &wanted)),
    }
}

fn directory_there(directory: &Directory, state: &State, verdict: &mut Verdict) {
    match state.files.get(&directory.path) {
        None => verdict.change(Action::Create, ""),
        Some(found) => {
            let mut details = rights(found, &directory.mode, &directory.owner, &directory.group);
            if found.kind != "directory" {
                details.insert(0, format!("is a {}", found.kind));
            }
            if !details.is_empty() {
                verdict.change(Action::Change, details.join(", "));
            }
        }
    }
}

fn absent(path: &str, state: &State, verdict: &mut Verdict) {
    if let Some(found) = state.files.get(path) {
        verdict.change(Action::Remove, format!("the {}", found.kind));
    }
}

/// A change of kind `Run` restarts (or starts) the unit; any other leaves a running one running.
fn service_runs(service: &Service, state: &State, touched: &BTreeSet<String>, verdict: &mut Verdict) {
    let nothing = super::state::UnitState::default();
    let unit = state.units.get(&service.unit).unwrap_or(&nothing);
    if service.masked {
        if unit.load != "masked" {
            verdict.change(Action::Change, "stop, mask");
        }
        return;
    }
    let mut details = Vec::new();
    let mut action = Action::Change;
    if unit.load == "masked" {
        details.push("unmask".to_owned());
    }
    // Units without an [Install] section have nothing to enable.
    let fixed = ["static", "indirect", "generated", "alias"].contains(&unit.file.as_str());
    match service.enabled {
        Some(true) if unit.file != "enabled" && !fixed => details.push("enable".to_owned()),
        Some(false) if unit.file == "enabled" => details.push("disable".to_owned()),
        _ => {}
    }
    let active = ["active", "reloading"].contains(&unit.active.as_str());
    match service.running {
        Some(true) if !active => {
            action = Action::Run;
            details.push(if unit.active == "failed" { "start (it had failed)" } else { "start" }.to_owned());
        }
        Some(false) if active => details.push("stop".to_owned()),
        Some(true) => {
            if let Some(file) = service.restart_on.iter().find(|f| touched.contains(*f) || newer(f, unit.since, state))
            {
                action = Action::Run;
                details.push(format!("restart for {file}"));
            }
        }
        _ => {}
    }
    if !details.is_empty() {
        verdict.change(action, details.join(", "));
    }
}

/// Whether a file changed after a moment given in seconds since boot. A time in the future says nothing: the clock
/// was set back since.
fn newer(path: &str, since: f64, state: &State) -> bool {
    let started = state.clock - state.uptime + since;
    state.files.get(path).is_some_and(|f| f.mtime > started && f.mtime <= state.clock)
}

impl Sysctl {
    /// The file that keeps the settings.
    pub(super) fn text(&self) -> String {
        let lines = self.values.iter().map(|(name, value)| format!("{name} = {value}\n"));
        format!("# Written by rackhand.\n{}", lines.collect::<String>())
    }

    /// Settings that differ now and can be set here.
    pub(super) fn wrong<'a>(&'a self, state: &'a State) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
        self.values.iter().filter_map(|(name, wanted)| match state.sysctls.get(name) {
            Some((found, true)) if found != wanted && settable(name, state) => {
                Some((name.as_str(), found.as_str(), wanted.as_str()))
            }
            _ => None,
        })
    }
}

/// A container has network settings of its own; all others are those of the machine under it.
pub(super) fn settable(name: &str, state: &State) -> bool {
    !state.container || name.starts_with("net.")
}

fn sysctl_set(sysctl: &Sysctl, state: &State, verdict: &mut Verdict) {
    let file = File::new(&sysctl.file, sysctl.text());
    file_content(&file, state, verdict);
    let live: Vec<String> = sysctl.wrong(state).map(|(name, old, new)| format!("{name} {old} -> {new}")).collect();
    if !live.is_empty() {
        let (action, diff) = match verdict.change.take() {
            Some((action, _, diff)) => (action, diff.unwrap_or_default()),
            None => (Action::Change, String::new()),
        };
        verdict.diff(action, live.join(", "), diff);
    }
    for (name, wanted) in &sysctl.values {
        match state.sysctls.get(name) {
            Some((found, _)) if found == wanted => {}
            Some((_, true)) if settable(name, state) => {}
            Some(_) => verdict.skip(name, if state.container { "container" } else { "cannot be written" }),
            // A setting of a module that is not loaded yet, or of another kernel.
            None => verdict.skip(name, if state.container { "container" } else { "this kernel has no such setting" }),
        }
    }
}

impl Modules {
    /// The file that keeps the list.
    pub(super) fn text(&self) -> String {
        format!("# Written by rackhand.\n{}\n", self.names.join("\n"))
    }
}

fn modules_loaded(modules: &Modules, state: &State, verdict: &mut Verdict) {
    file_content(&File::new(&modules.file, modules.text()), state, verdict);
    let missing: Vec<&String> = modules.names.iter().filter(|n| !state.modules.contains(*n)).collect();
    if state.container {
        missing.iter().for_each(|name| verdict.skip(*name, "container"));
    } else if !missing.is_empty() {
        let names = missing.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(" ");
        let diff = verdict.change.take().and_then(|(_, _, diff)| diff).unwrap_or_default();
        verdict.diff(Action::Run, format!("load {names}"), diff);
    }
}

fn user_there(user: &User, state: &State, verdict: &mut Verdict) {
    let Some((shell, groups)) = state.users.get(&user.name) else {
        return verdict.change(Action::Create, "");
    };
    let mut details = Vec::new();
    if let Some(wanted) = user.shell.as_ref().filter(|w| *w != shell) {
        details.push(format!("shell {shell} -> {wanted}"));
    }
    details.extend(user.groups.iter().filter(|g| !groups.contains(*g)).map(|g| format!("join {g}")));
    if !details.is_empty() {
        verdict.change(Action::Change, details.join(", "));
    }
}
