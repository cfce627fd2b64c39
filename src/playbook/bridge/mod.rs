//! Bridges, changed so that an edit that cuts the tool off undoes itself.
//!
//! The edit is first made in a way that a reboot forgets. A timer on the host takes it back unless the tool reaches
//! the host over a *new* connection and confirms; only then are the files in `/etc` written.

mod ifupdown;
mod networkd;

use super::change::Action;
use super::diff::{Verdict, line_diff};
use super::resource::{Bridge, Resource};
use super::shell::quote;
use super::state::{BridgeState, State, look};
use crate::error::Failure;
use crate::ssh::{Exec, Remote, RemoteError, RemoteExt};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Seconds after which an unconfirmed edit is taken back; with the taking back itself it stays within 30.
const REVERT_AFTER: u64 = 25;
/// How long the confirmation itself may take.
const CONFIRM: Duration = Duration::from_secs(12);
/// How the confirmation ends when the host has taken the edit back already.
const UNDONE: i32 = 9;

/// Makes a connection that shares nothing with those there are.
pub type Fresh<'a> = &'a (dyn Fn() -> Result<Arc<dyn Remote>, Failure> + Send + Sync);

/// How a host is to be changed for a bridge.
#[derive(Debug, Default)]
struct Edit {
    /// The files in `/etc` afterwards, by path.
    files: BTreeMap<String, String>,
    /// Makes the bridge until the next reboot; `$1` says whether it was there before.
    make: String,
    /// Takes that back; `$1` as above.
    revert: String,
    /// What else has to be done once it is confirmed.
    settle: String,
}

/// What the bridge's probe adds to the script.
pub(super) fn probe(bridge: &Bridge) -> String {
    networkd::probe(bridge) + &ifupdown::probe(bridge)
}

fn link<'a>(state: &'a State, name: &str) -> Option<&'a serde_json::Value> {
    state.links.iter().find(|l| l["ifname"] == name)
}

/// The port that becomes part of the bridge.
fn port(bridge: &Bridge) -> String {
    bridge.vlan.map_or_else(|| bridge.uplink.clone(), |vlan| format!("{}.{vlan}", bridge.uplink))
}

/// The links that are made: the bridge, and the tagged port where it has one.
fn made(bridge: &Bridge) -> Vec<String> {
    let mut links = vec![bridge.name.clone()];
    links.extend(bridge.vlan.map(|_| port(bridge)));
    links
}

/// Files that make udev leave the names of these links alone, by name under `/etc/systemd/network`.
///
/// The links have the port's hardware address. A rule that names the port by it (as many hosts have one) fits them
/// too: the rename fails, and systemd-networkd waits for ever for a link that udev has not finished; or it succeeds
/// when the host boots, because the port is late.
fn link_files(bridge: &Bridge) -> impl Iterator<Item = (String, String)> {
    made(bridge).into_iter().map(|link| {
        let text = format!(
            "# Written by rackhand.\n# Not to be named like its port, whose hardware address it has.\n\
             [Match]\nOriginalName={link}\n\n[Link]\n"
        );
        (format!("05-rackhand-{link}.link"), text)
    })
}

/// The edit by whatever configures the port on this host.
fn edit(bridge: &Bridge, state: &State) -> Result<(Edit, BTreeMap<String, String>), String> {
    let Some(mac) = link(state, &bridge.uplink).and_then(|l| l["address"].as_str()) else {
        return Err(format!("there is no link {}", bridge.uplink));
    };
    if port(bridge).len() > 15 {
        return Err(format!("{} is longer than the 15 characters a link's name may have", port(bridge)));
    }
    let nothing = BridgeState::default();
    let found = state.bridges.get(&bridge.name).unwrap_or(&nothing);
    if state.networkd && !found.origin.0.is_empty() {
        return Ok((networkd::edit(bridge, mac, found)?, found.files.clone()));
    }
    match &found.interfaces {
        Some((path, text)) => {
            let mut old = found.files.clone();
            old.insert(path.clone(), text.clone());
            let mut edit = ifupdown::edit(bridge, mac, path, text, state)?;
            edit.files.extend(link_files(bridge).map(|(file, text)| (format!("/etc/systemd/network/{file}"), text)));
            Ok((edit, old))
        }
        None => Err(format!(
            "{} is configured by neither systemd-networkd (also under netplan) nor ifupdown; others are not supported",
            bridge.uplink
        )),
    }
}

pub(super) fn diff(bridge: &Bridge, state: &State, verdict: &mut Verdict) {
    let (wanted, old) = match edit(bridge, state) {
        Ok(edit) => edit,
        Err(reason) => return verdict.refuse(reason),
    };
    let mut diffs = Vec::new();
    for (path, text) in &wanted.files {
        let old = old.get(path).map_or("", String::as_str);
        if old != text {
            diffs.push(format!("{path}\n{}", line_diff(old, text)));
        }
    }
    let live = live(bridge, &wanted, state);
    if !diffs.is_empty() || !live.is_empty() {
        let action = if link(state, &bridge.name).is_none() { Action::Create } else { Action::Change };
        verdict.diff(action, live.join(", "), diffs.join("\n"));
    }
}

/// What is wrong with the running links.
fn live(bridge: &Bridge, wanted: &Edit, state: &State) -> Vec<String> {
    let mac = link(state, &bridge.uplink).map_or("", |l| l["address"].as_str().unwrap_or_default());
    let Some(found) = link(state, &bridge.name) else {
        return vec![format!("over {} with address {mac}", bridge.uplink)];
    };
    let mut wrong = Vec::new();
    if found["linkinfo"]["info_kind"] != "bridge" {
        wrong.push("is no bridge".to_owned());
    }
    if found["address"] != mac {
        wrong.push(format!("pin address {mac}"));
    }
    let port = port(bridge);
    if link(state, &port).is_none_or(|p| p["master"] != bridge.name.as_str()) {
        wrong.push(format!("take port {port}"));
    }
    if found["mtu"] != bridge.mtu {
        wrong.push(format!("mtu {} -> {}", found["mtu"], bridge.mtu));
    }
    let has = |address: &str| {
        found["addr_info"].as_array().is_some_and(|all| {
            all.iter().any(|a| format!("{}/{}", a["local"].as_str().unwrap_or_default(), a["prefixlen"]) == address)
        })
    };
    let network = wanted.files.get(&networkd::address_file(bridge)).map_or("", String::as_str);
    let configured = network.lines().filter_map(|l| l.strip_prefix("Address=")).map(str::to_owned);
    // What the port still carries has to move as well.
    let left = if bridge.vlan.is_none() { addresses(state, &bridge.uplink) } else { Vec::new() };
    for address in configured.chain(left) {
        if !has(&address) {
            wrong.push(format!("move {address}"));
        }
    }
    wrong
}

/// Addresses of a link that are not link-local.
fn addresses(state: &State, name: &str) -> Vec<String> {
    let all = link(state, name).and_then(|l| l["addr_info"].as_array()).into_iter().flatten();
    let global = all.filter(|a| a["scope"] == "global" && a["dynamic"] != true);
    global.map(|a| format!("{}/{}", a["local"].as_str().unwrap_or_default(), a["prefixlen"])).collect()
}

/// Makes the bridge, proves over a new connection that the host is still there, and only then makes it permanent.
///
/// Where the links are right and files are merely missing, nothing is tried: taking a try back would leave the host
/// with the files it has, and those are not what it runs on.
///
/// # Errors
/// When the host cannot be reached any more after the edit: it has then been taken back on the host.
pub(super) async fn apply(remote: &dyn Remote, bridge: &Bridge, fresh: Fresh<'_>) -> Result<(), Failure> {
    // Bridges over one port share files: what an earlier one wrote has to be kept.
    let state = look(remote, &[&Resource::Bridge(bridge.clone())]).await?;
    let (edit, old) = edit(bridge, &state).map_err(Failure::refused)?;
    let other = |(path, text): (&String, &String)| old.get(path).is_some_and(|old| old != text);
    if live(bridge, &edit, &state).is_empty() && !edit.files.iter().any(other) {
        let exec = Exec::argv(["bash", "-s"]).stdin(missing_script(bridge, &edit)).deadline(CONFIRM);
        fresh()?.check(exec).await?;
        return Ok(());
    }
    let began = Instant::now();
    // The edit itself may cut this very connection: its end is judged by the new one alone.
    let exec = Exec::argv(["bash", "-s"]).stdin(edit_script(bridge, &edit)).deadline(Duration::from_secs(15));
    match remote.check(exec).await {
        Ok(_) | Err(RemoteError::Lost { .. } | RemoteError::TimedOut { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    confirm(bridge, &edit, fresh, began + Duration::from_secs(REVERT_AFTER)).await
}

/// Confirms the edit over a connection made after it, as long as it stands.
async fn confirm(bridge: &Bridge, edit: &Edit, fresh: Fresh<'_>, until: Instant) -> Result<(), Failure> {
    let confirm = confirm_script(bridge, edit);
    loop {
        let mut undone = Instant::now() > until;
        let error = match fresh() {
            Err(error) => error,
            Ok(new) => match new.check(Exec::argv(["bash", "-s"]).stdin(confirm.as_str()).deadline(CONFIRM)).await {
                Ok(_) => return Ok(()),
                Err(error @ RemoteError::Status { status: UNDONE, .. }) => {
                    undone = true;
                    error.into()
                }
                Err(error @ RemoteError::Status { .. }) => return Err(error.into()),
                Err(error) => error.into(),
            },
        };
        if undone {
            let what = format!("bridge {}: the host was not reachable after the edit and has undone it", bridge.name);
            return Err(error.context(what).hint("check that the uplink in the inventory is the right port"));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Words that write a file; in base64, because a file may itself hold such words.
fn here_file(path: &str, text: &str) -> String {
    let (path, text) = (quote(path), BASE64.encode(text));
    format!("mkdir -p \"$(dirname {path})\"\nbase64 -d >{path} <<'RACKHAND_END'\n{text}\nRACKHAND_END\n")
}

/// Arms the timer, then edits in a unit of its own: a cut connection must not stop it half-way.
fn edit_script(bridge: &Bridge, edit: &Edit) -> String {
    let name = quote(&bridge.name);
    let mut s = format!(
        "set -eu\nmkdir -p /run/rackhand\n\
         systemctl stop rackhand-revert-{name}.timer rackhand-revert-{name}.service 2>/dev/null || true\n\
         had=no; ip link show dev {name} >/dev/null 2>&1 && had=yes\n"
    );
    s.push_str(&here_file(&format!("/run/rackhand/revert-{}.sh", bridge.name), &edit.revert));
    let _ = writeln!(
        s,
        "systemd-run --quiet --collect --unit=rackhand-revert-{name} --on-active={REVERT_AFTER} \
         --timer-property=AccuracySec=100ms bash /run/rackhand/revert-{name}.sh $had"
    );
    s.push_str(&here_file(&format!("/run/rackhand/edit-{}.sh", bridge.name), &format!("set -eu\n{}", edit.make)));
    let _ = writeln!(
        s,
        "systemd-run --quiet --collect --wait --unit=rackhand-edit-{name} bash /run/rackhand/edit-{name}.sh $had"
    );
    s
}

fn confirm_script(bridge: &Bridge, edit: &Edit) -> String {
    let name = quote(&bridge.name);
    let port = quote(&port(bridge));
    let armed = format!(
        "systemctl is-active -q rackhand-revert-{name}.timer ||\n\
         {{ echo 'the edit was taken back before it could be confirmed' >&2; exit {UNDONE}; }}\n"
    );
    // Not confirmed, the edit is taken back by its timer. A connection may come through only once it has been.
    let mut s = format!(
        "set -eu\n{armed}\
         until [ -e /sys/class/net/{name}/brif/{port} ] || [ $SECONDS -ge 8 ]; do sleep 0.1; done\n\
         if ! [ -e /sys/class/net/{name}/brif/{port} ]; then\n\
         echo 'port {port} did not come into the bridge; the edit is taken back' >&2\n\
         journalctl -u systemd-networkd -u networking --since=-1min -o cat 2>/dev/null | grep -iE 'fail|could not|not supported' | tail -n 3 >&2; exit 8; fi\n\
         {armed}\
         systemctl stop rackhand-revert-{name}.timer\n"
    );
    s.push_str(&permanent(edit));
    s
}

/// Writes what is missing. An edit that a killed run has left unconfirmed is confirmed by this: whoever runs it has
/// come over a new connection.
fn missing_script(bridge: &Bridge, edit: &Edit) -> String {
    let name = quote(&bridge.name);
    format!(
        "set -eu\nsystemctl stop rackhand-revert-{name}.timer 2>/dev/null || true\n\
         if systemctl is-active -q rackhand-revert-{name}.service; then\n\
         echo 'an edit of an earlier run is being taken back just now; run it again' >&2; exit {UNDONE}; fi\n"
    ) + &permanent(edit)
}

/// Writes the files that the edit makes permanent.
fn permanent(edit: &Edit) -> String {
    let mut s = String::new();
    for (path, text) in &edit.files {
        let new = format!("{path}.rackhand-new");
        s.push_str(&here_file(&new, text));
        let _ = writeln!(s, "chmod 644 {0}\nsync {0}\nmv -f {0} {1}", quote(&new), quote(path));
    }
    s + &edit.settle
}
