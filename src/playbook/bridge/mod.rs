//! Bridges, changed so that an edit that cuts the tool off undoes itself.

mod ifupdown;
mod networkd;

use super::change::Action;
use super::diff::{Verdict, line_diff};
use super::guard::{Fresh, Guarded, here_file};
use super::resource::{Bridge, Resource};
use super::shell::quote;
use super::state::{BridgeState, State, look};
use crate::error::Failure;
use crate::ssh::Remote;
use std::collections::BTreeMap;
use std::fmt::Write as _;

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

/// Makes the bridge so that an edit that cuts the tool off undoes itself.
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
    let runs = live(bridge, &edit, &state).is_empty() && !edit.files.iter().any(other);
    let guarded = guarded(bridge, edit);
    if runs { guarded.keep(fresh).await } else { guarded.apply(remote, fresh).await }
}

fn guarded(bridge: &Bridge, edit: Edit) -> Guarded {
    let name = quote(&bridge.name);
    let port = quote(&port(bridge));
    // Not by /sys: where a link of that name was deleted before, it can show a stale handle (seen in containers).
    let joined = format!("ip -o link show dev {port} 2>/dev/null | grep -q ' master {name} '");
    let check = format!(
        "until {joined} || [ $SECONDS -ge 8 ]; do sleep 0.1; done\n\
         if ! {joined}; then\n\
         echo 'port {port} did not come into the bridge; the edit is taken back' >&2\n\
         journalctl -u systemd-networkd -u networking --since=-1min -o cat 2>/dev/null | grep -iE 'fail|could not|not supported' | tail -n 3 >&2; exit 8; fi\n"
    );
    let mut keep = String::new();
    for (path, text) in &edit.files {
        // Hidden: `source /etc/network/interfaces.d/*` reads whatever a crash leaves there.
        let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
        let new = format!("{directory}/.{file}.rackhand-new");
        keep.push_str(&here_file(&new, text));
        let _ = writeln!(keep, "chmod 644 {0}\nsync {0}\nmv -f {0} {1}", quote(&new), quote(path));
    }
    Guarded {
        name: bridge.name.clone(),
        what: format!("bridge {}", bridge.name),
        hint: "check that the uplink in the inventory is the right port",
        before: format!("if ip link show dev {name} >/dev/null 2>&1; then echo yes; else echo no; fi"),
        make: edit.make,
        revert: edit.revert,
        check,
        keep: keep + &edit.settle,
    }
}
