//! How a host is right now: a view of its facts.

use crate::error::Failure;
use crate::host::{self, Facts, Section};
use crate::ssh::Remote;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a host may take to say how it is.
const DEADLINE: Duration = Duration::from_secs(5);

/// How a host is right now.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HostMetrics {
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

/// What of a host changes by itself.
const SECTIONS: [Section; 3] = [Section::Time, Section::Files, Section::Units];

/// Asks a host how it is.
///
/// # Errors
/// When it cannot be reached or does not answer in time.
pub async fn metrics(remote: &dyn Remote) -> Result<HostMetrics, Failure> {
    Ok(of(&host::look(remote, &SECTIONS, DEADLINE).await?))
}

fn of(facts: &Facts) -> HostMetrics {
    let mut metrics = HostMetrics {
        uptime: facts.uptime,
        load: facts.load,
        cpus: facts.cpu.threads,
        memory: facts.memory.total,
        memory_available: facts.memory.available,
        clock_offset: facts.clock.offset,
        clock: facts.clock.now,
        ..HostMetrics::default()
    };
    for found in &facts.units {
        unit(&mut metrics, &found.name, found.state == "active");
    }
    metrics
}

fn unit(metrics: &mut HostMetrics, name: &str, active: bool) {
    let stem = name.trim_end_matches(".service").trim_end_matches(".socket");
    if stem.starts_with("ceph-mon@") {
        metrics.mon = Some(active);
    } else if let Some(number) = stem.strip_prefix("ceph-osd@").and_then(|n| n.parse().ok()) {
        metrics.osds.insert(number, active);
    } else if stem == "libvirtd" || stem == "virtqemud" {
        metrics.libvirt |= active;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(units: &[(&str, &str)]) -> HostMetrics {
        let unit = |(name, state): &(&str, &str)| host::Unit { name: (*name).to_owned(), state: (*state).to_owned() };
        let mut facts =
            Facts { uptime: 3600.5, load: 0.42, units: units.iter().map(unit).collect(), ..Facts::default() };
        facts.cpu.threads = 32;
        facts.clock.offset = Some(-0.000_012);
        of(&facts)
    }

    #[test]
    fn services_are_told_apart_by_their_units() {
        let metrics = with(&[
            ("ceph-mon@h1.service", "active"),
            ("ceph-osd@3.service", "active"),
            ("ceph-osd@4.service", "failed"),
            ("libvirtd.service", "inactive"),
            ("libvirtd.socket", "active"),
            ("rackhand-x.service", "active"),
        ]);
        assert_eq!((metrics.cpus, metrics.clock_offset), (32, Some(-0.000_012)));
        assert_eq!(metrics.mon, Some(true));
        assert_eq!(metrics.osds, BTreeMap::from([(3, true), (4, false)]));
        assert!(metrics.libvirt);
    }

    #[test]
    fn a_bare_host_has_no_services() {
        let metrics = with(&[]);
        assert_eq!((metrics.mon, metrics.libvirt, metrics.osds.len()), (None, false, 0));
    }
}
