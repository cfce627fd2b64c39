//! What `rackhand watch` shows: a line a host on a terminal, one line an event, or one look.

use super::watch_control::Leader;
use super::watch_words::{phase, short};
use crate::error::Failure;
use crate::ui::{Job, Table, Ui};
use crate::watch::brain::{Phase, Settings, State};
use crate::watch::driver::{Audience, HostPicture, Picture, Told};
use crate::watch::witness::Work;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Hosts that have a line each on the screen; of more, those that are well share one.
const LINES: usize = 16;

/// Shows what happens while it happens.
pub(super) struct Screen {
    ui: Ui,
    lines: BTreeMap<String, Job>,
}

impl Screen {
    pub(super) fn new(ui: Ui) -> Self {
        Screen { ui, lines: BTreeMap::new() }
    }

    fn line(&mut self, label: &str, words: String) {
        let ui = &self.ui;
        self.lines.entry(label.to_owned()).or_insert_with(|| ui.job(label)).step(words);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        std::mem::take(&mut self.lines).into_values().for_each(Job::withdraw);
    }
}

impl Audience for Screen {
    fn hear(&mut self, told: &Told) {
        let text = match &told.guest {
            Some(guest) => format!("guest {guest}: {}", told.text),
            None => told.text.clone(),
        };
        self.ui.tell(&told.kind, told.host.as_deref(), text);
    }

    fn see(&mut self, picture: &Picture) -> bool {
        if !self.ui.draws() {
            return false;
        }
        let many = picture.hosts.len() > LINES;
        let shown: Vec<&HostPicture> =
            picture.hosts.iter().filter(|host| !many || !is_well(host)).take(LINES).collect();
        let keep = |label: &String| label == "watch" || shown.iter().any(|host| host.name == *label);
        let gone: Vec<String> = self.lines.keys().filter(|label| !keep(label)).cloned().collect();
        for label in gone {
            self.lines.remove(&label).into_iter().for_each(Job::withdraw);
        }
        self.line("watch", rack_line(picture));
        for host in shown {
            self.line(&host.name, host_line(host));
        }
        false
    }
}

fn is_well(host: &HostPicture) -> bool {
    host.state == State::Healthy && host.phase == Phase::Watched
}

fn rack_line(picture: &Picture) -> String {
    let beating = picture.hosts.iter().filter(|host| host.beats).count();
    let leads = match (&picture.leads, &picture.leader) {
        (true, _) => "leads".to_owned(),
        (false, Some(leader)) => format!("stands by for {}", short(leader)),
        (false, None) => "does not lead".to_owned(),
    };
    let mons = match picture.mons {
        Some((_, quorum, members)) => format!("{quorum} of {members} mons in quorum"),
        None => "mons not heard yet".to_owned(),
    };
    let armed = picture.disarmed.as_ref().map_or(String::new(), |why| format!(", DISARMED: {why}"));
    format!("{leads}; {beating} of {} hosts beat, {mons}{armed}", picture.hosts.len())
}

fn host_line(host: &HostPicture) -> String {
    let fenced = if host.phase > Phase::Suspected { format!(" [{}]", phase(host.phase)) } else { String::new() };
    if !host.beats {
        let since = host.silent.map_or("not heard yet".to_owned(), |silent| format!("silent for {}", seconds(silent)));
        let lost = host.lost.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        return format!("{}{fenced}: {since}{lost}", host.state);
    }
    let domains = host.domains.map_or(String::new(), |n| format!(", {n} running"));
    let libvirt = host.libvirt.as_ref().map_or(String::new(), |work| format!(", libvirt {}", word(work)));
    let disk = host.disk.as_ref().map_or(String::new(), |work| format!(", disk {}", word(work)));
    format!("{}{fenced}{disk}{libvirt}{domains}", host.state)
}

fn word(work: &Work) -> String {
    match work {
        Work::Took(took) => format!("{:.1} ms", took.as_secs_f64() * 1000.0),
        Work::Late(since) => format!("late for {}", seconds(*since)),
        Work::Failed(why) => format!("failed: {why}"),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Looks until everything has been heard, or has had its time.
pub(super) struct Glance {
    /// Whoever is silent this long after the beginning counts as such.
    limit: Duration,
    picture: Option<Picture>,
}

impl Glance {
    pub(super) fn new(settings: &Settings) -> Self {
        Glance { limit: settings.grace + settings.patience + Duration::from_secs(2), picture: None }
    }

    /// What was seen.
    pub(super) fn look(self, leader: Result<Option<Leader>, Failure>) -> Look {
        let picture = self.picture;
        let hosts: Vec<HostLook> = picture.iter().flat_map(|picture| picture.hosts.iter().map(HostLook::of)).collect();
        let mut findings: Vec<String> =
            hosts.iter().filter(|host| host.state != "healthy").map(|host| host.reason.clone()).collect();
        match picture.as_ref().and_then(|picture| picture.mons) {
            None => findings.push("no mon answers".to_owned()),
            Some((_, quorum, members)) if quorum < members => {
                findings.push(format!("{quorum} of {members} mons are in quorum"));
            }
            Some(_) => {}
        }
        if let Some(why) = picture.as_ref().and_then(|picture| picture.disarmed.as_ref()) {
            findings.push(format!("the watch is disarmed: {why}"));
        }
        let leader = match leader {
            Ok(Some(leader)) if leader.alive => Some(leader.holder),
            Ok(_) => {
                findings.push("no watcher leads: a host that dies is not recovered".to_owned());
                None
            }
            Err(failure) => {
                findings.push(format!("the watchers' lease cannot be read: {failure}"));
                None
            }
        };
        Look { leader, hosts, findings }
    }
}

impl Audience for Glance {
    fn hear(&mut self, _: &Told) {}

    fn see(&mut self, picture: &Picture) -> bool {
        let heard = picture.hosts.iter().all(|host| host.state == State::Healthy);
        let quorate = picture.mons.is_some_and(|(answer, quorum, members)| answer == members && quorum == members);
        let enough = (heard && quorate) || picture.at >= self.limit;
        if enough {
            self.picture = Some(picture.clone());
        }
        enough
    }
}

/// One look at everything.
#[derive(Debug, Serialize)]
pub(super) struct Look {
    /// The watcher that leads.
    pub(super) leader: Option<String>,
    /// The hosts.
    pub(super) hosts: Vec<HostLook>,
    /// What is wrong.
    pub(super) findings: Vec<String>,
}

/// One look at a host.
#[derive(Debug, Serialize)]
pub(super) struct HostLook {
    host: String,
    state: String,
    reason: String,
    silent_ms: Option<u128>,
    disk: Option<String>,
    libvirt: Option<String>,
    domains: Option<u32>,
}

impl HostLook {
    fn of(host: &HostPicture) -> Self {
        HostLook {
            host: host.name.clone(),
            state: host.state.to_string(),
            reason: host.reason.clone(),
            silent_ms: host.silent.map(|silent| silent.as_millis()),
            disk: host.disk.as_ref().map(word),
            libvirt: host.libvirt.as_ref().map(word),
            domains: host.domains,
        }
    }
}

impl Look {
    pub(super) fn table(&self) -> String {
        let mut table = Table::new(["host", "state", "disk", "libvirt", "running"]).right(4);
        for host in &self.hosts {
            let text = |cell: &Option<String>| cell.clone().unwrap_or_default();
            let running = host.domains.map(|n| n.to_string()).unwrap_or_default();
            table.row([host.host.clone(), host.state.clone(), text(&host.disk), text(&host.libvirt), running]);
        }
        let mut lines = vec![table.render()];
        lines.extend(self.findings.iter().map(|finding| format!("- {finding}")));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, state: State, silent: u64) -> HostPicture {
        HostPicture {
            name: name.to_owned(),
            beats: silent < 400,
            silent: Some(Duration::from_millis(silent)),
            disk: Some(Work::Took(Duration::from_micros(640))),
            libvirt: Some(Work::Late(Duration::from_millis(2500))),
            domains: Some(3),
            lost: (silent >= 400).then(|| "the stream ended".to_owned()),
            state,
            reason: format!("host {name}: it is {state}"),
            phase: Phase::Watched,
        }
    }

    fn picture(hosts: Vec<HostPicture>) -> Picture {
        Picture { at: Duration::from_secs(9), leads: true, leader: None, disarmed: None, mons: Some((3, 3, 3)), hosts }
    }

    #[test]
    fn a_line_says_how_a_host_is() {
        let dead = HostPicture { phase: Phase::Fencing, ..host("h2", State::Dead, 1200) };
        let lines = [
            rack_line(&picture(vec![host("h1", State::Healthy, 90), dead.clone()])),
            host_line(&host("h1", State::Healthy, 90)),
            host_line(&dead),
        ];
        insta::assert_snapshot!(lines.join("\n"), @"
        leads; 1 of 2 hosts beat, 3 of 3 mons in quorum
        healthy, disk 0.6 ms, libvirt late for 2.5 s, 3 running
        dead [fencing]: silent for 1.2 s (the stream ended)
        ");
    }

    #[test]
    fn one_look_ends_when_all_is_well_or_time_is_up_and_lists_what_is_wrong() {
        let settings = Settings::fastest();
        let leader = |alive| Ok(Some(Leader { holder: "ann@admin".into(), generation: 3, alive }));
        let mut well = Glance::new(&settings);
        assert!(well.see(&Picture { at: Duration::ZERO, ..picture(vec![host("h1", State::Healthy, 90)]) }));
        assert_eq!(well.look(leader(true)).findings, [""; 0]);
        let mut ill = Glance::new(&settings);
        let hosts = vec![host("h1", State::Healthy, 90), host("h2", State::Suspect, 1200)];
        let seen = Picture { mons: Some((2, 2, 3)), disarmed: Some("a new switch".into()), ..picture(hosts) };
        assert!(!ill.see(&Picture { at: Duration::from_secs(1), ..seen.clone() }), "it may be heard yet");
        assert!(ill.see(&seen));
        insta::assert_snapshot!(ill.look(leader(false)).table(), @"
        HOST  STATE    DISK    LIBVIRT         RUNNING
        h1    healthy  0.6 ms  late for 2.5 s        3
        h2    suspect  0.6 ms  late for 2.5 s        3
        - host h2: it is suspect
        - 2 of 3 mons are in quorum
        - the watch is disarmed: a new switch
        - no watcher leads: a host that dies is not recovered
        ");
    }
}
