//! Bridges where systemd-networkd is in charge, also under netplan: its files sort after ours.
//!
//! The new files first go to `/run`, where they win over those in `/etc` and are gone after a reboot.

use super::judge::LINK;
use super::names::{Edit, address_file, link_files, port};
use crate::playbook::resource::Bridge;
use crate::playbook::shell::quote;
use crate::playbook::state::BridgeState;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What the bridge's probe adds to the script.
pub(in crate::playbook) fn probe(bridge: &Bridge) -> String {
    let mut script = String::new();
    for file in names(bridge) {
        let path = quote(&format!("/etc/systemd/network/{file}"));
        let _ = writeln!(
            script,
            "[ -e {path} ] && printf 'netfile\\t%s\\t%s\\t%s\\n' {} {path} \"$(base64 -w0 {path})\"",
            quote(&bridge.name),
        );
    }
    let (name, uplink) = (quote(&bridge.name), quote(&bridge.uplink));
    let _ = write!(
        script,
        r#"d=/etc/systemd/network
origin=$(sed -n 's/^# From //p' $d/05-rackhand-{name}.network $d/05-rackhand-{uplink}.network | head -n1)
[ -n "$origin" ] || origin=$(sed -n 's/^NETWORK_FILE=//p' "/run/systemd/netif/links/$(ip -o link show dev {uplink} | cut -d: -f1)")
case $origin in */0[45]-rackhand-*) origin= ;; esac
[ -n "$origin" ] || origin=$(grep -lx 'Name={uplink}' $d/*.network /run/systemd/network/*.network | grep -v rackhand | head -n1)
printf 'origin\t%s\t%s\t%s\n' {name} "$origin" "$(base64 -w0 "$origin")"
for f in "$d/${{origin##*/}}.d/rackhand-{port}.conf" "$d/05-rackhand-{uplink}.network.d/rackhand-{port}.conf"; do
[ -e "$f" ] && printf 'netfile\t%s\t%s\t%s\n' {name} "$f" "$(base64 -w0 "$f")"
done
"#,
        port = quote(&port(bridge))
    );
    script
}

fn names(bridge: &Bridge) -> Vec<String> {
    let (name, uplink) = (&bridge.name, &bridge.uplink);
    let mut names = vec![format!("05-rackhand-{name}.netdev"), format!("05-rackhand-{name}.network")];
    names.extend(link_files(bridge).map(|(file, _)| file));
    match bridge.vlan {
        None => names.push(format!("05-rackhand-{uplink}.network")),
        Some(vlan) => {
            names.push(format!("05-rackhand-{uplink}.{vlan}.netdev"));
            names.push(format!("05-rackhand-{uplink}.{vlan}.network"));
        }
    }
    names
}

/// The files that make the bridge, by name under `/etc/systemd/network`.
fn files(bridge: &Bridge, mac: &str, found: &BridgeState) -> Result<BTreeMap<String, String>, String> {
    let Bridge { name, uplink, vlan, mtu } = bridge;
    let head = "# Written by rackhand.\n";
    let netdev = format!(
        "{head}# Pinned: an unpinned bridge takes the lowest address among its ports, guests' included.\n\
         [NetDev]\nName={name}\nKind=bridge\nMACAddress={mac}\nMTUBytes={mtu}\n\n[Bridge]\nSTP=no\n"
    );
    let mut files: BTreeMap<_, _> = link_files(bridge).collect();
    files.insert(format!("05-rackhand-{name}.netdev"), netdev);
    let enslaved = format!("[Link]\nMTUBytes={mtu}\n\n[Network]\nBridge={name}\nLinkLocalAddressing=no\n");
    match vlan {
        None => {
            let from = format!("# From {}\n", found.origin.0);
            let address = match found.files.get(&address_file(bridge)) {
                _ if !found.origin.1.is_empty() => {
                    format!("{head}{from}{}", readdressed(&found.origin.1, name, *mtu))
                }
                Some(ours) => ours.clone(),
                None => return Err(format!("{uplink} is not configured by systemd-networkd")),
            };
            files.insert(format!("05-rackhand-{name}.network"), address);
            files.insert(
                format!("05-rackhand-{uplink}.network"),
                format!("{head}{from}[Match]\nName={uplink}\n\n{enslaved}"),
            );
        }
        Some(vlan) => {
            let tagged = port(bridge);
            let Some((_, origin)) = found.origin.0.rsplit_once('/') else {
                return Err(format!("{uplink} is not configured by systemd-networkd"));
            };
            files.insert(
                format!("05-rackhand-{name}.network"),
                format!(
                    "{head}[Match]\nName={name}\n\n[Network]\nLinkLocalAddressing=no\nConfigureWithoutCarrier=yes\n"
                ),
            );
            files.insert(
                format!("05-rackhand-{tagged}.netdev"),
                format!("{head}[NetDev]\nName={tagged}\nKind=vlan\n\n[VLAN]\nId={vlan}\n"),
            );
            files
                .insert(format!("05-rackhand-{tagged}.network"), format!("{head}[Match]\nName={tagged}\n\n{enslaved}"));
            // The port keeps its own file; a drop-in hangs the tag on it, also when another bridge takes the port.
            for parent in [origin.to_owned(), format!("05-rackhand-{uplink}.network")] {
                files.insert(format!("{parent}.d/rackhand-{tagged}.conf"), format!("{head}[Network]\nVLAN={tagged}\n"));
            }
        }
    }
    Ok(files)
}

/// A port's network file with its match turned to the bridge: addresses, routes and name servers move along, and so does
/// whether a boot waits for the link. The rest of `[Link]` is the judge's business.
fn readdressed(origin: &str, bridge: &str, mtu: u32) -> String {
    let mut out = format!("[Match]\nName={bridge}\n\n[Link]\nMTUBytes={mtu}\n");
    let mut rest = String::new();
    let mut section = "";
    for line in origin.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';']) && !l.is_empty()) {
        if line.starts_with('[') {
            section = line;
            if section != "[Match]" && section != "[Link]" {
                let _ = write!(rest, "\n{section}\n");
            }
        } else if section == "[Link]" {
            if LINK.iter().any(|key| line.split('=').next().is_some_and(|k| k.trim() == *key && k.trim() != "MTUBytes"))
            {
                let _ = writeln!(out, "{line}");
            }
        } else if section != "[Match]" {
            let _ = writeln!(rest, "{line}");
        }
    }
    out + &rest
}

/// What a file is called in `/run`, where it is tried out. A drop-in has to go by the name that the port's file has just
/// now: the one of its try until the host restarts, the one in `/etc` afterwards.
fn tried(file: &str) -> Vec<String> {
    let tried = file.replacen("05-rackhand-", "04-rackhand-try-", 1);
    if file.contains(".d/") && tried != file { vec![tried, file.to_owned()] } else { vec![tried] }
}

pub(super) fn edit(bridge: &Bridge, mac: &str, found: &BridgeState) -> Result<Edit, String> {
    let files = files(bridge, mac, found)?;
    let (name, uplink) = (quote(&bridge.name), quote(&bridge.uplink));
    let mut make = String::new();
    let mut tries = Vec::new();
    for (file, text) in &files {
        for name in tried(file) {
            let path = format!("/run/systemd/network/{name}");
            make.push_str(&crate::playbook::guard::here_file(&path, text));
            tries.push(quote(&path));
        }
    }
    let _ = writeln!(
        make,
        "udevadm control --reload 2>/dev/null || true\nnetworkctl reload\nfor i in $(seq 50); do ip link show dev {name} >/dev/null 2>&1 && break; sleep 0.1; done\n\
         ip link set dev {name} address {mac}"
    );
    // Reload leaves alone what networkd believes to be right already.
    let _ = writeln!(make, "if [ \"$1\" = yes ]; then networkctl reconfigure {uplink} {name}; fi");
    let mut revert = format!("rm -f {}\n", tries.join(" "));
    let _ = writeln!(
        revert,
        "if [ \"$1\" = no ]; then ip link set {} nomaster; ip link del {name}; fi",
        quote(&port(bridge))
    );
    if bridge.vlan.is_some() {
        let _ = writeln!(revert, "[ \"$1\" = yes ] || ip link del {}", quote(&port(bridge)));
    }
    let _ = writeln!(
        revert,
        "networkctl reload\nnetworkctl reconfigure {uplink}\n[ \"$1\" = no ] || networkctl reconfigure {name}"
    );
    let files = files.into_iter().map(|(file, text)| (format!("/etc/systemd/network/{file}"), text)).collect();
    Ok(Edit { files, make, revert, settle: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn untagged() -> Bridge {
        Bridge { name: "br-lan".into(), uplink: "mgmt".into(), vlan: None, mtu: 1500 }
    }

    #[test]
    fn addresses_move_to_the_bridge_and_the_port_keeps_none() {
        let origin = "[Match]\nName=mgmt\n\n[Network]\nAddress=10.1.0.1/24\nGateway=10.1.0.254\n";
        let found = BridgeState {
            origin: ("/etc/systemd/network/20-mgmt.network".into(), origin.into()),
            ..Default::default()
        };
        let files = files(&untagged(), "02:00:00:00:00:01", &found).unwrap();
        insta::assert_snapshot!(files["05-rackhand-br-lan.network"], @r"
        # Written by rackhand.
        # From /etc/systemd/network/20-mgmt.network
        [Match]
        Name=br-lan

        [Link]
        MTUBytes=1500

        [Network]
        Address=10.1.0.1/24
        Gateway=10.1.0.254
        ");
        assert!(files["05-rackhand-br-lan.netdev"].contains("MACAddress=02:00:00:00:00:01"));
        assert!(files["05-rackhand-mgmt.network"].contains("Bridge=br-lan"));
        assert!(!files["05-rackhand-mgmt.network"].contains("Address="));
        assert!(files["05-rackhand-br-lan.link"].contains("[Match]\nOriginalName=br-lan\n"));
        assert!(!files.contains_key("05-rackhand-mgmt.link"), "the port's name stays the host's business");
    }

    #[test]
    fn a_tagged_bridge_leaves_the_port_its_addresses() {
        let found = BridgeState {
            origin: ("/run/systemd/network/10-netplan-eno1.network".into(), "[Match]\nName=eno1\n".into()),
            ..Default::default()
        };
        let bridge = Bridge { name: "br-dmz".into(), uplink: "eno1".into(), vlan: Some(42), mtu: 1500 };
        let files = files(&bridge, "02:00:00:00:00:01", &found).unwrap();
        assert!(!files.contains_key("05-rackhand-eno1.network"));
        assert!(files["10-netplan-eno1.network.d/rackhand-eno1.42.conf"].contains("VLAN=eno1.42"));
        assert!(files["05-rackhand-eno1.42.network"].contains("Bridge=br-dmz"));
        assert!(files["05-rackhand-eno1.42.link"].contains("OriginalName=eno1.42"));
        let edit = edit(&bridge, "02:00:00:00:00:01", &found).unwrap();
        for parent in ["10-netplan-eno1", "05-rackhand-eno1", "04-rackhand-try-eno1"] {
            let file = format!("/run/systemd/network/{parent}.network.d/rackhand-eno1.42.conf");
            assert!(edit.make.contains(&file) && edit.revert.contains(&file), "{file}");
        }
    }
}
