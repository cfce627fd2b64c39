//! A healthy host takes no migration from one that is fenced, and cuts the streams that are under way.
//!
//! A move that waits in the fenced host's libvirt would otherwise run after the fence, and land old memory here, under an
//! address that the storage does not refuse (rule R6).

use crate::error::{Failure, Kind, ResultExt};
use crate::ssh::{Exec, Remote};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// How long a host may take to change its packet filter.
const LIMIT: Duration = Duration::from_secs(5);

/// Closes the gate for the addresses that follow, or opens it again. A chain of its own, so that nobody's rules are touched;
/// packets of streams that exist already are dropped like the first ones. $1: add or delete.
/// Ports: libvirt's (TCP 16509, TLS 16514), and those QEMU listens at for a migration (49152 to 49215, libvirt's default).
/// The gate outlasts a restart of this host: a unit loads it before libvirt. With the last address all of it goes.
const SCRIPT: &str = r#"
set -eu
verb=$1
shift
export PATH="$PATH:/usr/sbin:/sbin"
command -v nft >/dev/null || { [ "$verb" = delete ] && exit 0; echo "nft is missing" >&2; exit 3; }
nft -f - <<'RULES'
table inet rackhand_fence {
  set fenced4 { type ipv4_addr; }
  set fenced6 { type ipv6_addr; }
  chain gate {
    type filter hook input priority -150; policy accept;
  }
}
flush chain inet rackhand_fence gate
add rule inet rackhand_fence gate ip saddr @fenced4 tcp dport { 16509, 16514, 49152-49215 } drop
add rule inet rackhand_fence gate ip6 saddr @fenced6 tcp dport { 16509, 16514, 49152-49215 } drop
RULES
for address in "$@"; do
  case $address in *:*) set=fenced6 ;; *) set=fenced4 ;; esac
  nft add element inet rackhand_fence "$set" "{ $address }"
  if [ "$verb" = delete ]; then nft delete element inet rackhand_fence "$set" "{ $address }"; fi
done
rules=/var/lib/rackhand/gate.nft
unit=/etc/systemd/system/rackhand-gate.service
wants=/etc/systemd/system/multi-user.target.wants/rackhand-gate.service
mkdir -p "${rules%/*}" "${wants%/*}"
if nft list table inet rackhand_fence | grep -q elements; then
  cat >"$unit.new" <<UNIT
[Unit]
Description=Take no migration from a host that rackhand has fenced
ConditionPathExists=$rules
DefaultDependencies=no
After=local-fs.target
Before=network-pre.target libvirtd.service virtqemud.service
Wants=network-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=$(command -v nft) -f $rules
UNIT
  nft list table inet rackhand_fence >"$rules.new"
  sync "$rules.new" "$unit.new"
  mv "$unit.new" "$unit"
  mv "$rules.new" "$rules"
  ln -sf "$unit" "$wants"
else
  nft delete table inet rackhand_fence
  rm -f "$rules" "$unit" "$wants"
fi
"#;

async fn change(host: &dyn Remote, verb: &str, addresses: &BTreeSet<IpAddr>) -> Result<(), Failure> {
    let arguments = std::iter::once(verb.to_owned()).chain(addresses.iter().map(IpAddr::to_string));
    let output = host.run(Exec::script(SCRIPT, arguments).deadline(LIMIT)).await?;
    if output.ok() {
        return Ok(());
    }
    Err(Failure::msg(Kind::Failed, output.tail()))
}

/// Has a host take no migration from these addresses any more.
///
/// # Errors
/// When the host cannot be asked, or has no packet filter.
pub async fn close_gate(host: &dyn Remote, addresses: &BTreeSet<IpAddr>) -> Result<(), Failure> {
    let refused = change(host, "add", addresses).await;
    refused
        .while_doing(|| format!("cannot have {} refuse migrations from a fenced host", host.name()))
        .or_hint("`rackhand provision` installs what is missing there")
}

/// Has a host take migrations from these addresses again.
///
/// # Errors
/// When the host cannot be asked.
pub async fn open_gate(host: &dyn Remote, addresses: &BTreeSet<IpAddr>) -> Result<(), Failure> {
    let opened = change(host, "delete", addresses).await;
    opened.while_doing(|| format!("cannot have {} take migrations again", host.name()))
}
