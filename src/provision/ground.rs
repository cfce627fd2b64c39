//! What a host is, as far as provisioning depends on it: one script, one round trip.

use crate::error::Failure;
use crate::ssh::{Exec, Remote, RemoteExt};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a host is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ground {
    /// `ID` of os-release: `debian`.
    pub os: String,
    /// `VERSION_ID` of os-release: `12`.
    pub version: String,
    /// `systemd-detect-virt --container`, empty on a machine.
    pub container: String,
    /// What configures the network.
    pub network: String,
    /// Whether there is a hardware watchdog.
    pub watchdog: bool,
    /// The port that each of its addresses is behind: where a bridge has the address, the one whose hardware address the
    /// bridge has, as ours do.
    pub ports: BTreeMap<IpAddr, String>,
    /// Units of ours that still run, left by a run that was killed. A network edit that waits to be taken back is none of
    /// them: what is on disk may have drifted, and would cut the host off. This run edits anew and stops that timer.
    pub jobs: Vec<String>,
}

impl Ground {
    /// Whether the host is a container.
    pub fn is_container(&self) -> bool {
        !self.container.is_empty()
    }
}

const SCRIPT: &str = r#"
. /etc/os-release
echo "os=$ID"
echo "version=$VERSION_ID"
c=$(systemd-detect-virt --container 2>/dev/null) && echo "container=$c"
if [ -n "$(ls /etc/netplan/*.yaml 2>/dev/null)" ]; then echo network=netplan
elif systemctl is-active -q NetworkManager 2>/dev/null; then echo network=networkmanager
elif systemctl is-active -q systemd-networkd 2>/dev/null; then echo network=networkd
elif [ -e /etc/network/interfaces ] && systemctl is-enabled -q networking 2>/dev/null; then echo network=ifupdown
else echo network=unknown
fi
[ -e /dev/watchdog0 ] && echo watchdog=yes
ip -o addr show scope global | while read -r _ link _ address _; do
  mac=$(ip -o link show dev "$link" | sed -n 's/.* link\/ether \([^ ]*\).*/\1/p')
  port=$(ip -o link show master "$link" 2>/dev/null | grep -F " link/ether $mac " | head -n1 | cut -d ' ' -f 2)
  port=${port%%[@:]*}
  echo "port=${address%/*} ${port:-$link}"
done
systemctl list-units --plain --no-legend --state=active,activating 'rackhand-*.service' 2>/dev/null | while read -r unit _; do
  echo "job=$unit"
done
exit 0
"#;

/// Looks at a host.
///
/// # Errors
/// When it cannot be reached.
pub async fn look(remote: &dyn Remote) -> Result<Ground, Failure> {
    let output = remote.check(Exec::script(SCRIPT, Vec::<String>::new())).await?;
    Ok(parse(&output.text()))
}

fn parse(text: &str) -> Ground {
    let mut ground = Ground::default();
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let value = value.trim();
        match key {
            "os" => ground.os = value.to_owned(),
            "version" => ground.version = value.to_owned(),
            "container" => ground.container = value.to_owned(),
            "network" => ground.network = value.to_owned(),
            "watchdog" => ground.watchdog = true,
            "port" => {
                if let Some((address, port)) = value.split_once(' ')
                    && let Ok(address) = address.parse()
                {
                    ground.ports.insert(address, port.to_owned());
                }
            }
            "job" => ground.jobs.push(value.to_owned()),
            _ => {}
        }
    }
    ground
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_container_is_read() {
        let ground = parse(
            "os=debian\nversion=12\ncontainer=systemd-nspawn\nnetwork=networkd\n\
             port=10.0.0.11 eno1\nport=fd00::11 eno1\njob=rackhand-packages.service\n",
        );
        assert_eq!((ground.os.as_str(), ground.version.as_str()), ("debian", "12"));
        assert!(ground.is_container() && !ground.watchdog);
        assert_eq!(ground.ports[&IpAddr::from([10, 0, 0, 11])], "eno1");
        assert_eq!((ground.ports.len(), ground.jobs), (2, vec!["rackhand-packages.service".to_owned()]));
    }
}
