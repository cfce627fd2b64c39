//! How a host is right now: one script, one round trip.

use crate::error::Failure;
use crate::ssh::{Exec, Remote, RemoteExt};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a host may take to say how it is.
const DEADLINE: Duration = Duration::from_secs(5);

/// How a host is right now.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pulse {
    /// Seconds since it booted.
    pub uptime: f64,
    /// Run queue over the last minute.
    pub load: f64,
    /// Hardware threads.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Memory in bytes that could be given away without swapping.
    pub memory_available: u64,
    /// Seconds its clock is off by its own time service's estimate; none where no service tells.
    pub clock_offset: Option<f64>,
    /// Its clock, in seconds since 1970, when the script ran.
    pub clock: f64,
    /// Whether its monitor runs; none where it has none.
    pub mon: Option<bool>,
    /// OSD numbers whose service is enabled on it, with whether each runs.
    pub osds: BTreeMap<u32, bool>,
    /// Whether libvirt answers on its socket's unit.
    pub libvirt: bool,
}

const SCRIPT: &str = r#"
read -r up _ < /proc/uptime; echo "uptime $up"
read -r load _ < /proc/loadavg; echo "load $load"
echo "cpus $(nproc)"
while read -r key value _; do
  case $key in MemTotal:) echo "memory $value";; MemAvailable:) echo "available $value";; esac
done < /proc/meminfo
echo "clock $(date +%s.%N)"
if command -v chronyc >/dev/null; then
  chronyc -c tracking 2>/dev/null | { IFS=, read -r ref _ _ _ offset _; [ -z "$offset" ] || [ "$ref" = 7F7F0101 ] || echo "offset $offset"; }
fi
systemctl list-units --all --plain --no-legend 'ceph-mon@*.service' 'ceph-osd@*.service' 'libvirtd.service' 'libvirtd.socket' \
  'virtqemud.service' 'virtqemud.socket' 2>/dev/null | while read -r unit _ active _; do echo "unit $unit $active"; done
exit 0
"#;

/// Asks a host how it is.
///
/// # Errors
/// When it cannot be reached or does not answer in time.
pub async fn pulse(remote: &dyn Remote) -> Result<Pulse, Failure> {
    let output = remote.check(Exec::script(SCRIPT, Vec::<String>::new()).deadline(DEADLINE)).await?;
    Ok(read(&output.text()))
}

/// Reads what the script wrote; lines it does not know are passed over.
fn read(text: &str) -> Pulse {
    let mut pulse = Pulse::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(key), Some(value)) = (words.next(), words.next()) else { continue };
        let number = || value.parse::<f64>().unwrap_or_default();
        let kib = || value.parse::<u64>().unwrap_or_default() << 10;
        match key {
            "uptime" => pulse.uptime = number(),
            "load" => pulse.load = number(),
            "cpus" => pulse.cpus = value.parse().unwrap_or_default(),
            "memory" => pulse.memory = kib(),
            "available" => pulse.memory_available = kib(),
            "clock" => pulse.clock = number(),
            "offset" => pulse.clock_offset = value.parse().ok(),
            "unit" => unit(&mut pulse, value, words.next() == Some("active")),
            _ => {}
        }
    }
    pulse
}

fn unit(pulse: &mut Pulse, name: &str, active: bool) {
    let stem = name.trim_end_matches(".service").trim_end_matches(".socket");
    if stem.starts_with("ceph-mon@") {
        pulse.mon = Some(active);
    } else if let Some(number) = stem.strip_prefix("ceph-osd@").and_then(|n| n.parse().ok()) {
        pulse.osds.insert(number, active);
    } else if stem == "libvirtd" || stem == "virtqemud" {
        pulse.libvirt |= active;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_says_is_read() {
        let pulse = read(
            "uptime 3600.5\nload 0.42\ncpus 32\nmemory 264000000\navailable 200000000\nclock 1700000000.25\n\
             offset -0.000012\nunit ceph-mon@h1.service active\nunit ceph-osd@3.service active\n\
             unit ceph-osd@4.service failed\nunit libvirtd.service inactive\nunit libvirtd.socket active\nnoise\n",
        );
        assert_eq!(pulse.cpus, 32);
        assert_eq!(pulse.memory, 264_000_000 << 10);
        assert_eq!(pulse.clock_offset, Some(-0.000_012));
        assert_eq!(pulse.mon, Some(true));
        assert_eq!(pulse.osds, BTreeMap::from([(3, true), (4, false)]));
        assert!(pulse.libvirt);
    }

    #[test]
    fn a_bare_host_has_no_services() {
        let pulse = read("uptime 5\nload 0\ncpus 2\n");
        assert_eq!((pulse.mon, pulse.libvirt, pulse.osds.len()), (None, false, 0));
    }
}
