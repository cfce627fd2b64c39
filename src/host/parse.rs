//! The sections of the facts script, read into [`Facts`].

use super::block;
use super::facts::{Cpu, Facts, IbPort, Memory, NumaNode, Os, Space};
use super::nics;
use std::collections::{BTreeMap, BTreeSet};

const NODES: &str = "/sys/devices/system/node/node";
const INFINIBAND: &str = "/sys/class/infiniband/";

/// The script's sections, each the lines below its mark.
pub(super) type Sections<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// Reads a whole transcript; a cut one is an error, strange lines are passed over.
pub(super) fn facts(text: &str) -> Result<Facts, String> {
    let sections = split(text);
    if !sections.contains_key("end") {
        return Err("the fact script did not come to its end".to_owned());
    }
    let files = pairs(lines(&sections, "files"), ':');
    let file = |name: &str| files.get(name).map(|v| v.trim().to_owned()).unwrap_or_default();
    let hardware = lines(&sections, "hardware");
    let mut facts = Facts {
        hostname: file("/proc/sys/kernel/hostname"),
        boot_id: file("/proc/sys/kernel/random/boot_id"),
        uptime: file("/proc/uptime").split(' ').next().and_then(|s| s.parse().ok()).unwrap_or_default(),
        os: os(lines(&sections, "os"), file("/proc/sys/kernel/osrelease")),
        cpu: cpu(hardware),
        memory: memory(hardware),
        numa: numa(&files),
        infiniband: infiniband(&files, lines(&sections, "links")),
        disks: block::disks(&sections),
        space: space(lines(&sections, "space")),
        ..Facts::default()
    };
    facts.nics = nics::nics(&sections, &files, &facts.infiniband);
    facts.machine.vendor = file("sys_vendor");
    facts.machine.model = file("product_name");
    facts.machine.serial = file("product_serial");
    facts.machine.uuid = file("product_uuid");
    facts.machine.bios = file("bios_version");
    clock(&mut facts, lines(&sections, "time"));
    software(&mut facts, lines(&sections, "software"));
    let can = |word: &str| hardware.contains(&word);
    facts.virtualization.kvm = can("kvm") && (can("vmx") || can("svm"));
    facts.virtualization.inside = match file("/run/systemd/container") {
        container if !container.is_empty() => Some(container),
        _ => can("hypervisor").then(|| "a virtual machine".to_owned()),
    };
    Ok(facts)
}

fn split(text: &str) -> Sections<'_> {
    let mut sections = Sections::new();
    let mut name = "";
    for line in text.lines() {
        if let Some(mark) = line.strip_prefix("@@ ") {
            name = mark.split(' ').next().unwrap_or_default();
            sections.entry(name).or_default();
        } else {
            sections.entry(name).or_default().push(line);
        }
    }
    sections
}

/// The lines of a section, none where it is missing.
pub(super) fn lines<'a, 'b>(sections: &'b Sections<'a>, name: &str) -> &'b [&'a str] {
    sections.get(name).map_or(&[], Vec::as_slice)
}

fn pairs<'a>(lines: &[&'a str], separator: char) -> BTreeMap<&'a str, &'a str> {
    let mut map = BTreeMap::new();
    for (name, value) in lines.iter().filter_map(|line| line.split_once(separator)) {
        // Of a file with many lines the first counts.
        map.entry(name.trim_end()).or_insert(value);
    }
    map
}

fn os(lines: &[&str], kernel: String) -> Os {
    let fields = pairs(lines, '=');
    let field = |name: &str| fields.get(name).map(|v| v.trim_matches(['"', '\'']).to_owned()).unwrap_or_default();
    Os { id: field("ID"), version: field("VERSION_ID"), name: field("PRETTY_NAME"), kernel, arch: field("MACHINE") }
}

fn cpu(lines: &[&str]) -> Cpu {
    let (mut model, mut cores, mut socket, mut threads) = (String::new(), BTreeSet::new(), "0", 0);
    for (key, value) in lines.iter().filter_map(|l| l.split_once(':')) {
        match key.trim() {
            "processor" => threads += 1,
            "model name" if model.is_empty() => model = value.split_whitespace().collect::<Vec<_>>().join(" "),
            "physical id" => socket = value.trim(),
            "core id" => drop(cores.insert((socket, value.trim()))),
            _ => {}
        }
    }
    let sockets: BTreeSet<&str> = cores.iter().map(|(socket, _)| *socket).collect();
    Cpu { model, sockets: count(sockets.len()), cores: count(cores.len()), threads }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// `16384 kB` in bytes.
fn kib(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default() << 10
}

fn memory(lines: &[&str]) -> Memory {
    let fields = pairs(lines, ':');
    let field = |name: &str| fields.get(name).copied().unwrap_or_default();
    let pages: u64 = field("HugePages_Total").trim().parse().unwrap_or_default();
    Memory {
        total: kib(field("MemTotal")),
        available: kib(field("MemAvailable")),
        swap: kib(field("SwapTotal")),
        huge: pages * kib(field("Hugepagesize")),
    }
}

fn numa(files: &BTreeMap<&str, &str>) -> Vec<NumaNode> {
    let mut nodes: Vec<NumaNode> = files
        .iter()
        .filter_map(|(path, cpus)| {
            let node = path.strip_prefix(NODES)?.strip_suffix("/cpulist")?.parse().ok()?;
            let memory = files.get(format!("{NODES}{node}/meminfo").as_str())?;
            let memory = memory.split_once("MemTotal:").map_or(0, |(_, size)| kib(size));
            Some(NumaNode { node, cpus: (*cpus).to_owned(), memory })
        })
        .collect();
    nodes.sort_by_key(|n| n.node);
    nodes
}

fn infiniband(files: &BTreeMap<&str, &str>, links: &[&str]) -> Vec<IbPort> {
    let mut ports = Vec::new();
    for (path, rate) in files {
        let below = path.strip_prefix(INFINIBAND).and_then(|p| p.strip_suffix("/rate"));
        let Some((device, port)) = below.and_then(|p| p.split_once("/ports/")) else { continue };
        let file =
            |name: &str| files.get(format!("{INFINIBAND}{device}/ports/{port}/{name}").as_str()).copied().unwrap_or("");
        let below = format!("{INFINIBAND}{device}/device/net/");
        // `56 Gb/sec (4X FDR)`, `2.5 Gb/sec (1X SDR)`
        let gbit: f64 = rate.split(' ').next().and_then(|r| r.parse().ok()).unwrap_or_default();
        ports.push(IbPort {
            device: device.to_owned(),
            port: port.to_owned(),
            state: file("state").split_once(": ").map_or("", |(_, state)| state).to_owned(),
            speed: (gbit * 1000.0).round() as u64,
            link_layer: file("link_layer").to_owned(),
            nics: links.iter().filter_map(|l| l.strip_prefix(&below)).map(str::to_owned).collect(),
        });
    }
    ports
}

fn clock(facts: &mut Facts, lines: &[&str]) {
    facts.clock.now = lines.first().and_then(|l| l.parse().ok()).unwrap_or_default();
    if lines.contains(&"timesyncd") {
        facts.clock.source = Some("timesyncd".to_owned());
    }
    // chronyc -c tracking: id, address, stratum, reference time, system time offset, ...
    let tracking = lines.iter().map(|l| l.split(',').collect::<Vec<_>>()).find(|fields| fields.len() > 10);
    if let Some(fields) = tracking {
        facts.clock.source = Some("chrony".to_owned());
        let synchronised = fields.last().is_some_and(|leap| *leap != "Not synchronised");
        facts.clock.offset = synchronised.then(|| fields[4].parse().ok()).flatten();
    }
}

fn software(facts: &mut Facts, lines: &[&str]) {
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let ["installed", package, version] = words[..] else { continue };
        let version = Some(version.to_owned());
        match package {
            "ceph-common" => facts.software.ceph = version,
            "ceph-osd" => facts.software.ceph_osd = version,
            "libvirt-daemon" => facts.software.libvirt = version,
            _ => facts.software.qemu = version,
        }
    }
}

fn space(lines: &[&str]) -> Vec<Space> {
    let mut found: Vec<Space> = Vec::new();
    for line in lines.iter().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, size, _, free, _, mount] = words[..] {
            let space = Space { mount: mount.to_owned(), size: kib(size), free: kib(free) };
            if !found.contains(&space) {
                found.push(space);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rack_server_with_infiniband_is_read_in_full() {
        let facts = facts(include_str!("testdata/r720xd.txt")).unwrap();
        insta::assert_yaml_snapshot!(facts);
    }

    #[test]
    fn a_bare_container_is_read_in_full() {
        let facts = facts(include_str!("testdata/container.txt")).unwrap();
        assert_eq!(facts.hostname, "h1");
        assert_eq!(facts.machine.serial, "RH00101");
        assert_eq!((facts.os.id.as_str(), facts.os.version.as_str()), ("debian", "12"));
        assert_eq!(facts.virtualization.inside.as_deref(), Some("systemd-nspawn"));
        assert!(!facts.virtualization.kvm);
        let nics: Vec<_> = facts.nics.iter().map(|n| (n.name.as_str(), n.mtu, n.addresses.join(" "))).collect();
        assert_eq!(nics, [("eno1", 1500, "10.77.1.11/24".to_owned()), ("eno2", 1500, "10.78.1.11/24".to_owned())]);
        // The other hosts' loop devices are not its own.
        assert_eq!(facts.disks.len(), 1);
        let disk = facts.disk("/dev/disk/by-id/rackhand-RH00101-disk0").unwrap();
        assert_eq!(disk.size, 12 << 30);
        assert!(disk.is_empty());
        assert_eq!(facts.software, crate::host::Software::default());
    }

    #[test]
    fn a_cut_transcript_is_an_error_and_a_strange_one_is_not() {
        assert!(facts("@@ begin 1\n@@ files\nsys_vendor:Dell Inc.\n").is_err());
        let strange = facts("noise\n@@ net\nnot json\n@@ block\n{\n@@ cpu\nx\n@@ space\na b\n@@ end\n").unwrap();
        assert_eq!(strange, Facts::default());
    }
}
