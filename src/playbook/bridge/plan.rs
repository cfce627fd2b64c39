//! Bridges, changed so that an edit that cuts the tool off undoes itself.

use super::files::interfaces;
use super::judge::{self, Refusal};
use super::names::{Edit, address_file, addresses, link, link_files, port};
use super::{ifupdown, networkd};
use crate::error::Failure;
use crate::playbook::change::Action;
use crate::playbook::guard::{Fresh, Guarded, here_file};
use crate::playbook::resource::Bridge;
use crate::playbook::shell::quote;
use crate::playbook::state::{BridgeState, State};
use crate::playbook::text::line_diff;
use crate::ssh::Remote;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What has to change for a bridge.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::playbook) struct Difference {
    /// Whether the bridge is made or changed.
    pub action: Action,
    /// What is wrong with the running links.
    pub live: String,
    /// What is different in files, line by line.
    pub files: String,
}

/// The edit by whatever configures the port on this host, and the files as they are, by path.
fn edit(bridge: &Bridge, state: &State) -> Result<(Edit, BTreeMap<String, String>), Refusal> {
    let refuse = |what: String| Refusal {
        what,
        fix: "name another port as `uplink` of its network, or correct what configures this one".to_owned(),
    };
    let Some(mac) = link(state, &bridge.uplink).and_then(|l| l["address"].as_str()) else {
        return Err(refuse(format!("there is no link {}", bridge.uplink)));
    };
    if port(bridge).len() > 15 {
        return Err(refuse(format!("{} is longer than the 15 characters a link's name may have", port(bridge))));
    }
    if let Some(refusal) = judge::refusal(bridge, state) {
        return Err(refusal);
    }
    let nothing = BridgeState::default();
    let found = state.bridges.get(&bridge.name).unwrap_or(&nothing);
    if state.networkd && !found.origin.0.is_empty() {
        return Ok((networkd::edit(bridge, mac, found).map_err(refuse)?, found.files.clone()));
    }
    let Some((path, text)) = interfaces(bridge, &state.network_files) else {
        return Err(refuse(format!(
            "{} is configured by neither systemd-networkd (also under netplan) nor ifupdown, and others are not supported",
            bridge.uplink
        )));
    };
    let mut old = found.files.clone();
    old.insert(path.to_owned(), text.to_owned());
    let mut edit = ifupdown::edit(bridge, mac, path, text, state).map_err(refuse)?;
    edit.files.extend(link_files(bridge).map(|(file, text)| (format!("/etc/systemd/network/{file}"), text)));
    Ok((edit, old))
}

/// Why the host's network must not be changed for this bridge, if so.
pub fn refusal(bridge: &Bridge, state: &State) -> Option<Refusal> {
    edit(bridge, state).err()
}

/// What a bridge lacks, if anything.
///
/// # Errors
/// Why the host's network must not be changed for it.
pub(in crate::playbook) fn diff(bridge: &Bridge, state: &State) -> Result<Option<Difference>, Refusal> {
    let (wanted, old) = edit(bridge, state)?;
    let mut diffs = Vec::new();
    for (path, text) in &wanted.files {
        let old = old.get(path).map_or("", String::as_str);
        if old != text {
            diffs.push(format!("{path}\n{}", line_diff(old, text)));
        }
    }
    let live = live(bridge, &wanted, state);
    if diffs.is_empty() && live.is_empty() {
        return Ok(None);
    }
    let action = if link(state, &bridge.name).is_none() { Action::Create } else { Action::Change };
    Ok(Some(Difference { action, live: live.join(", "), files: diffs.join("\n") }))
}

/// What is wrong with the running links.
fn live(bridge: &Bridge, wanted: &Edit, state: &State) -> Vec<String> {
    let mac = link(state, &bridge.uplink).map_or("", |l| l["address"].as_str().unwrap_or_default());
    let Some(found) = link(state, &bridge.name) else {
        return vec![format!("over {} with address {mac}", bridge.uplink)];
    };
    let mut wrong = Vec::new();
    if found["linkinfo"]["info_kind"] != "bridge" {
        wrong.push("is not a bridge".to_owned());
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
    let network = wanted.files.get(&address_file(bridge)).map_or("", String::as_str);
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

/// Makes the bridge so that an edit that cuts the tool off undoes itself. `state` was looked at just now: bridges over one
/// port share files, and what an earlier one wrote has to be kept.
///
/// Where the links are right and files are merely missing, nothing is tried: taking a try back would leave the host
/// with the files it has, and those are not what it runs on.
///
/// # Errors
/// When the host cannot be reached any more after the edit: it has then been taken back on the host.
pub(in crate::playbook) async fn apply(
    remote: &dyn Remote,
    bridge: &Bridge,
    state: &State,
    fresh: Fresh<'_>,
) -> Result<(), Failure> {
    let (edit, old) = edit(bridge, state).map_err(|why| Failure::refused(why.to_string()))?;
    let other = |(path, text): (&String, &String)| old.get(path).is_some_and(|old| old != text);
    let runs = live(bridge, &edit, state).is_empty() && !edit.files.iter().any(other);
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
