//! The engine against itself: tables for each resource, and real shells for scripts.

use super::apply::{packages, script};
use super::probe::{parse, script as probe_script};
use super::resource::*;
use super::state::{FileState, State, UnitState, sha256};
use super::{Action, Change, Findings, apply, diff};
use crate::error::{Failure, Kind};
use crate::ssh::{FakeRemote, RemoteError};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command as Process, Stdio};

fn found(resource: Resource, state: &State) -> Findings {
    diff("h1", "test", &[resource], state, &mut BTreeSet::new())
}

/// What is planned for one resource, in a few words.
fn words(resource: Resource, state: &State) -> String {
    let findings = found(resource, state);
    let changes = findings.changes.iter().map(|c| format!("{} {}", c.action.sign(), c.detail).trim().to_owned());
    let skipped = findings.skipped.iter().map(|s| format!(". {} ({})", s.object, s.reason));
    changes.chain(skipped).collect::<Vec<_>>().join("; ")
}

fn file_state(content: &str) -> FileState {
    FileState {
        kind: "regular file".into(),
        mode: "644".into(),
        owner: "root".into(),
        group: "root".into(),
        mtime: 100.0,
        sha256: sha256(content.as_bytes()),
        content: Some(content.into()),
    }
}

fn unit(load: &str, active: &str, file: &str, since: f64) -> UnitState {
    UnitState { load: load.into(), active: active.into(), file: file.into(), since }
}

#[test]
fn a_file_is_compared_by_content_and_rights() {
    let file = || File::new("/etc/a", "one\ntwo\n");
    let state = |found: FileState| State { files: [("/etc/a".to_owned(), found)].into(), ..State::default() };
    assert_eq!(words(Resource::File(file()), &State::default()), "+");
    assert_eq!(words(Resource::File(file()), &state(file_state("one\ntwo\n"))), "");
    assert_eq!(words(Resource::File(file()), &state(file_state("one\n"))), "~ content");
    let other = FileState { mode: "600".into(), owner: "ceph".into(), ..file_state("one\ntwo\n") };
    assert_eq!(words(Resource::File(file()), &state(other)), "~ mode 600 -> 644, owner ceph -> root");
    let link = FileState { kind: "symbolic link".into(), ..file_state("one\ntwo\n") };
    assert_eq!(words(Resource::File(file()), &state(link)), "~ replace the symbolic link by a file");
}

#[test]
fn a_secret_file_shows_no_content() {
    let file = File::new("/etc/key", "hunter2\n").secret();
    let state = State { files: [("/etc/key".to_owned(), file_state("other\n"))].into(), ..State::default() };
    for state in [State::default(), state] {
        let text = format!("{:?}", found(Resource::File(file.clone()), &state));
        assert!(!text.contains("hunter2") && !text.contains("other"), "{text}");
    }
    assert!(!probe_script(&[&Resource::File(file)]).contains("content /etc/key"), "and none comes back from the host");
}

#[test]
fn a_service_is_started_enabled_or_restarted_as_needed() {
    let service = |running, enabled| {
        Resource::Service(Service {
            unit: "x.service".into(),
            enabled,
            running,
            masked: false,
            restart_on: vec!["/etc/x".into()],
        })
    };
    // Boot was at 1000 by the clock; the unit started 100 s later; the file is as old as the case says.
    let state = |unit: UnitState, mtime: f64| State {
        clock: 2000.0,
        uptime: 1000.0,
        units: [("x.service".to_owned(), unit)].into(),
        files: [("/etc/x".to_owned(), FileState { mtime, ..file_state("") })].into(),
        ..State::default()
    };
    let (yes, no) = (Some(true), Some(false));
    let up = || unit("loaded", "active", "enabled", 100.0);
    let table = [
        (yes, yes, unit("not-found", "inactive", "", 0.0), 0.0, "! enable, start"),
        (yes, yes, up(), 1050.0, ""),
        (yes, yes, up(), 1150.0, "! restart for /etc/x"),
        (yes, yes, up(), 9999.0, ""),
        (yes, None, unit("loaded", "failed", "disabled", 0.0), 0.0, "! start (it had failed)"),
        (yes, yes, unit("loaded", "active", "static", 100.0), 0.0, ""),
        (yes, yes, unit("loaded", "active", "disabled", 100.0), 0.0, "~ enable"),
        (no, no, up(), 0.0, "~ disable, stop"),
        (yes, None, unit("masked", "inactive", "masked", 0.0), 0.0, "! unmask, start"),
    ];
    for (running, enabled, unit, mtime, expected) in table {
        let shown = format!("{unit:?} {mtime}");
        assert_eq!(words(service(running, enabled), &state(unit, mtime)), expected, "{shown}");
    }
}

#[test]
fn a_planned_file_restarts_its_reader_in_the_same_plan() {
    let file = Resource::File(File::new("/etc/x", "new\n"));
    let service = Service {
        unit: "x.service".into(),
        enabled: None,
        running: Some(true),
        masked: false,
        restart_on: vec!["/etc/x".into()],
    };
    let state = State {
        units: [("x.service".to_owned(), unit("loaded", "active", "enabled", 5.0))].into(),
        ..State::default()
    };
    let findings = diff("h1", "test", &[file, Resource::Service(service)], &state, &mut BTreeSet::new());
    assert_eq!(findings.changes[1].detail, "restart for /etc/x");
}

#[test]
fn a_container_is_left_its_kernel() {
    let sysctl = Sysctl {
        file: "/etc/s".into(),
        values: [("vm.swappiness", "10"), ("net.ipv4.ip_forward", "1")].map(|(k, v)| (k.into(), v.into())).into(),
    };
    let text = sysctl.text();
    let state = |container| State {
        container,
        files: [("/etc/s".to_owned(), file_state(&text))].into(),
        sysctls: [("vm.swappiness", "60"), ("net.ipv4.ip_forward", "0")]
            .map(|(k, v)| (k.to_owned(), (v.to_owned(), true)))
            .into(),
        ..State::default()
    };
    assert_eq!(
        words(Resource::Sysctl(sysctl.clone()), &state(false)),
        "~ net.ipv4.ip_forward 0 -> 1, vm.swappiness 60 -> 10"
    );
    assert_eq!(
        words(Resource::Sysctl(sysctl.clone()), &state(true)),
        "~ net.ipv4.ip_forward 0 -> 1; . sysctl /etc/s: vm.swappiness (container)"
    );
    let change = Change::new("h1", "test", Action::Change, "sysctl /etc/s");
    let written = |container| script(&Resource::Sysctl(sysctl.clone()), &change, &state(container));
    assert!(written(false).contains(">/proc/sys/vm/swappiness") && !written(true).contains("/proc/sys/vm/"));
    assert!(written(true).contains(">/proc/sys/net/ipv4/ip_forward"));
    let modules = Modules { file: "/etc/m".into(), names: vec!["tun".into()] };
    let state = State { container: true, ..State::default() };
    assert_eq!(words(Resource::Modules(modules), &state), "+; . modules /etc/m: tun (container)");
}

/// The installation with an apt-get that answers `-s`, `install` and `update` by these words of a shell: how it ended,
/// its output, and what apt-get was asked.
fn installation(simulate: &str, install: &str, update: &str) -> (bool, String, String) {
    installation_of(&["a", "b"], "exit 0", simulate, install, update)
}

/// The same for these packages, where `find` answers so: with what is newer than the lists of packages.
fn installation_of(names: &[&str], newer: &str, simulate: &str, install: &str, update: &str) -> (bool, String, String) {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let tool = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let asked = directory.path().join("asked");
    tool("dpkg", "exit 0".to_owned());
    tool("find", newer.to_owned());
    tool("apt-cache", "printf 'ceph-volume:\\n  Installed: (none)\\n  Candidate: 18.2.4-1~bpo12+1\\n'".to_owned());
    let words = format!(
        "echo \"$*\" >>{}\ncase \"$*\" in *' -s '*) {simulate} ;; *' install '*) {install} ;; *) {update} ;; esac",
        asked.display()
    );
    tool("apt-get", words);
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let script = packages(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
    let output = Process::new("bash").args(["-c", &script]).env("PATH", path).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    (output.status.success(), said, std::fs::read_to_string(asked).unwrap())
}

#[test]
fn an_installation_removes_nothing_but_another_time_service_and_upgrades_nothing() {
    let (done, said, asked) = installation("echo 'Remv pve-qemu-kvm [8.1]'", "true", "true");
    assert!(!done && said.contains("would remove pve-qemu-kvm"), "{said}");
    assert!(asked.lines().all(|line| line.contains(" -s ")), "nothing was installed: {asked}");
    let (done, said, asked) = installation("echo 'Remv systemd-timesyncd [252]'; echo 'Inst a'", "true", "true");
    assert!(done, "{said}");
    assert!(asked.lines().last().unwrap().contains("--no-upgrade --fix-broken install a b"), "{asked}");
}

#[test]
fn the_lists_are_fetched_first_where_a_repository_is_newer_than_they_are() {
    let (done, _, asked) = installation_of(&["a"], "echo /etc/apt/sources.list.d/ceph.list", "true", "true", "true");
    let asked: Vec<&str> = asked.lines().collect();
    assert!(done && asked[0].ends_with(" update") && asked.last().unwrap().ends_with(" install a"), "{asked:?}");
    let (_, _, asked) = installation_of(&["a"], "exit 0", "true", "true", "true");
    assert!(!asked.contains(" update"), "{asked}");
}

#[test]
fn a_ceph_whose_ceph_volume_is_a_package_of_its_own_gets_it() {
    let (done, _, asked) = installation_of(&["ceph-common", "ceph-osd"], "exit 0", "true", "true", "true");
    assert!(done && asked.lines().last().unwrap().ends_with(" install ceph-common ceph-osd ceph-volume"), "{asked}");
    let (_, _, asked) = installation_of(&["ceph-common"], "exit 0", "true", "true", "true");
    assert!(!asked.contains("ceph-volume"), "{asked}");
}

#[test]
fn why_packages_could_not_be_had_is_said_last() {
    let lost = "for p in a b c d e f; do echo \"E: Unable to locate package $p\"; done; exit 100";
    let fetch =
        "echo 'W: Failed to fetch http://m/InRelease  Could not connect to m:80'; echo 'Reading package lists...'";
    let (done, said, asked) = installation("exit 100", lost, fetch);
    assert!(!done && said.trim_end().ends_with("Could not connect to m:80"), "{said}");
    assert_eq!(asked.lines().filter(|line| line.ends_with(" update")).count(), 1, "{asked}");
}

#[test]
fn packages_users_and_commands() {
    let packages = || Resource::Packages(vec!["a".into(), "b".into()]);
    let mut state = State { installed: ["a".to_owned()].into(), ..State::default() };
    assert_eq!(words(packages(), &state), "+ install b");
    state.broken.insert("b".into());
    assert_eq!(words(packages(), &state), "~ finish the interrupted installation of b");
    let user = || {
        Resource::User(User {
            name: "u".into(),
            system: false,
            shell: Some("/bin/sh".into()),
            groups: vec!["g".into()],
        })
    };
    assert_eq!(words(user(), &state), "+");
    state.users.insert("u".into(), ("/bin/bash".into(), ["u".to_owned()].into()));
    assert_eq!(words(user(), &state), "~ shell /bin/bash -> /bin/sh, join g");
    let command = || {
        Resource::Command(Command {
            name: "c".into(),
            probe: "false".into(),
            shows: None,
            apply: "true".into(),
            guard: None,
            limit: 1,
        })
    };
    assert_eq!(words(command(), &state), "!");
    state.commands.insert("c".into(), (1, "old -> new".into()));
    assert_eq!(words(command(), &state), "! old -> new");
    state.commands.insert("c".into(), (0, String::new()));
    assert_eq!(words(command(), &state), "");
}

fn bash(text: &str) -> String {
    let mut child = Process::new("bash").arg("-s").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{text}");
    String::from_utf8(output.stdout).unwrap()
}

/// Looks at this very machine.
fn look_here(resources: &[Resource]) -> State {
    let all: Vec<&Resource> = resources.iter().collect();
    parse(&bash(&probe_script(&all)), &all)
}

fn me(flag: &str) -> String {
    String::from_utf8(Process::new("id").arg(flag).output().unwrap().stdout).unwrap().trim().to_owned()
}

fn resources_in(directory: &Path, content: &str, block: &str) -> Vec<Resource> {
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let mut file = File::new(path("deep/file"), content).mode("0640");
    (file.owner, file.group) = (me("-un"), me("-gn"));
    let directory = Directory { path: path("it's a dir"), mode: "0750".into(), owner: me("-un"), group: me("-gn") };
    let block = Block {
        path: path("shared"),
        content: Some(block.to_owned()),
        template: None,
        name: "test".into(),
        comment: "#".into(),
    };
    vec![
        Resource::File(file.clone()),
        Resource::File(File { path: path("secret"), ..file }.secret()),
        Resource::Block(block),
        Resource::Directory(directory),
        Resource::Absent(path("gone")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever was there before: what is applied by a real shell leaves nothing to do, and other lines alone.
    #[test]
    fn what_is_applied_leaves_no_difference(
        content in "([ -~]{0,12}\n){0,4}",
        block in "([a-z$'\"\\\\ ]{0,12}\n){0,4}",
        old in proptest::option::of("[ -~]{0,20}\n"),
        kept in "[a-z]{1,9}",
    ) {
        let directory = tempfile::tempdir().unwrap();
        if let Some(old) = &old {
            std::fs::write(directory.path().join("gone"), old).unwrap();
            std::fs::write(directory.path().join("secret"), old).unwrap();
            std::fs::write(directory.path().join("shared"), format!("{kept}\n# BEGIN test\n{old}# END test\n")).unwrap();
        }
        let resources = resources_in(directory.path(), &content, &block);
        let state = look_here(&resources);
        let findings = diff("h1", "test", &resources, &state, &mut BTreeSet::new());
        prop_assert!(findings.changes.len() >= 4, "{:?}", findings);
        for change in &findings.changes {
            let resource = resources.iter().find(|r| r.object() == change.object).unwrap();
            bash(&format!("set -eu\n{}", script(resource, change, &state)));
        }
        let after = diff("h1", "test", &resources, &look_here(&resources), &mut BTreeSet::new());
        prop_assert_eq!(after, Findings::default());
        prop_assert_eq!(std::fs::read_to_string(directory.path().join("deep/file")).unwrap(), content);
        if old.is_some() {
            let shared = std::fs::read_to_string(directory.path().join("shared")).unwrap();
            prop_assert!(shared.starts_with(&format!("{kept}\n")), "{}", shared);
        }
    }
}

/// What a command would change is asked for only where its probe fails.
#[test]
fn a_command_says_what_would_change() {
    let command = |probe: &str, shows: &str| {
        Resource::Command(Command {
            name: "c".into(),
            probe: probe.into(),
            shows: Some(shows.into()),
            apply: "true".into(),
            guard: None,
            limit: 1,
        })
    };
    let said = |command: Resource| look_here(&[command]).commands["c"].clone();
    assert_eq!(said(command("exit 3", "echo 'old -> new'; echo more")), (3, "old -> new".into()));
    assert_eq!(said(command("true", "echo 'old -> new'")), (0, String::new()));
}

#[test]
fn a_bridge_over_a_bond_is_refused_with_the_reason_and_nothing_is_planned() {
    let bridge = Bridge { name: "br-lan".into(), uplink: "bond0".into(), vlan: None, mtu: 1500 };
    let text = "auto bond0\niface bond0 inet static\n    address 10.9.0.11/24\n    bond-slaves eno1 eno3\n";
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let links = r#"[{"ifname":"bond0","link_type":"ether","address":"02:00:00:00:00:01","mtu":1500,"linkinfo":{"info_kind":"bond"}}]"#;
    let said = format!("netconf\t/etc/network/interfaces\t{encoded}\nbegun\tbr-old\nlinks\t{links}\n");
    let resource = Resource::Bridge(bridge);
    let state = parse(&said, &[&resource]);
    assert!(state.begun.contains("br-old"));
    let findings = found(resource, &state);
    assert!(findings.changes.is_empty());
    let reason = &findings.refused[0].reason;
    assert!(reason.starts_with("uplink bond0 (/etc/network/interfaces line 2) is a bond"), "{reason}");
    let nowhere = Resource::Bridge(Bridge { name: "br".into(), uplink: "eno9".into(), vlan: None, mtu: 1500 });
    assert!(found(nowhere, &state).refused[0].reason.starts_with("there is no link eno9; name another port"));
}

#[test]
fn units_are_told_apart_by_their_order() {
    let service = |unit: &str| {
        let unit = unit.to_owned();
        Resource::Service(Service { unit, enabled: None, running: Some(true), masked: false, restart_on: Vec::new() })
    };
    let (a, b) = (service("a.service"), service("b.service"));
    let text = "units\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\nActiveEnterTimestampMonotonic=5000000\n\n\
                LoadState=not-found\nActiveState=inactive\nUnitFileState=\nActiveEnterTimestampMonotonic=0\n\nend\ncontainer\n";
    let state = parse(text, &[&b, &a]);
    assert_eq!(state.units["a.service"], unit("loaded", "active", "enabled", 5.0));
    assert_eq!(state.units["b.service"].load, "not-found");
    assert!(state.container, "what follows is read too");
}

#[tokio::test]
async fn a_link_that_is_lost_while_a_change_is_made_leaves_its_outcome_unknown() {
    let resource = Resource::File(File::new("/etc/a", "one\n"));
    let changes = found(resource.clone(), &State::default()).changes;
    for lost in [true, false] {
        let remote = FakeRemote::new("h1").rule(move |_| {
            let (host, command) = ("h1".to_owned(), "bash".to_owned());
            Some(Err(match lost {
                true => RemoteError::Lost { host, command, reason: "broken pipe".to_owned() },
                false => RemoteError::Unreachable { host, reason: "no route".to_owned() },
            }))
        });
        let fresh = || Err(Failure::failed("not asked for"));
        let (resources, state) = (std::slice::from_ref(&resource), State::default());
        let made = apply(&remote, resources, &state, &changes, &fresh, |_| Ok(())).await;
        assert_eq!(made.unwrap_err().kind, if lost { Kind::Unknown } else { Kind::Failed });
    }
}
