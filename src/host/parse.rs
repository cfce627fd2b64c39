//! The sections of the facts script, read into [`Facts`].

use super::block;
use super::facts::{CephTraces, Cpu, Facts, IbPort, Memory, NumaNode, Os, Platform, Space, Unit};
use super::nics;
use super::sections::{Files, all, files, first, lines, pairs, split};
use std::collections::BTreeSet;

const NODES: &str = "/sys/devices/system/node/node";
const INFINIBAND: &str = "/sys/class/infiniband/";

/// Reads a whole transcript; a cut one is an error, strange lines are passed over.
pub(super) fn facts(text: &str) -> Result<Facts, String> {
    let sections = split(text);
    if !sections.contains_key("end") {
        return Err("the fact script did not come to its end".to_owned());
    }
    let files = files(lines(&sections, "files"));
    let file = |path: &str| first(&files, path).unwrap_or_default().trim().to_owned();
    let dmi = |name: &str| file(&format!("/sys/class/dmi/id/{name}"));
    let hardware = lines(&sections, "hardware");
    let processors = all(&files, "/proc/cpuinfo");
    let mut facts = Facts {
        hostname: file("/proc/sys/kernel/hostname"),
        boot_id: file("/proc/sys/kernel/random/boot_id"),
        uptime: file("/proc/uptime").split(' ').next().and_then(|s| s.parse().ok()).unwrap_or_default(),
        os: os(all(&files, "/etc/os-release"), file("/proc/sys/kernel/osrelease"), file("/proc/sys/kernel/arch")),
        cpu: cpu(processors),
        load: file("/proc/loadavg").split(' ').next().and_then(|s| s.parse().ok()).unwrap_or_default(),
        memory: memory(all(&files, "/proc/meminfo")),
        numa: numa(&files),
        infiniband: infiniband(&files, lines(&sections, "links")),
        disks: block::disks(&sections),
        space: space(lines(&sections, "space")),
        ..Facts::default()
    };
    facts.nics = nics::nics(&sections, &files, &facts.infiniband);
    if facts.os.arch.is_empty() {
        facts.os.arch = hardware.iter().find(|word| **word != "kvm").map(|word| (*word).to_owned()).unwrap_or_default();
    }
    facts.machine.vendor = dmi("sys_vendor");
    facts.machine.model = dmi("product_name");
    facts.machine.serial = dmi("product_serial");
    facts.machine.uuid = dmi("product_uuid");
    facts.machine.bios = dmi("bios_version");
    facts.ceph = ceph(lines(&sections, "ceph"));
    facts.units = lines(&sections, "units").iter().filter_map(|line| unit(line)).collect();
    facts.platform = sections.get("platform").map(|lines| Platform {
        network: lines.iter().find_map(|line| line.strip_prefix("network ")).unwrap_or_default().to_owned(),
        watchdog: lines.contains(&"watchdog"),
        container: file("/run/systemd/container"),
    });
    clock(&mut facts, lines(&sections, "time"));
    software(&mut facts, lines(&sections, "software"));
    let can = |word: &str| processors.contains(&word);
    facts.virtualization.kvm = hardware.contains(&"kvm") && (can("vmx") || can("svm"));
    facts.virtualization.inside = match file("/run/systemd/container") {
        container if !container.is_empty() => Some(container),
        _ => can("hypervisor").then(|| "a virtual machine".to_owned()),
    };
    Ok(facts)
}

fn os(lines: &[&str], kernel: String, arch: String) -> Os {
    let fields = pairs(lines, '=');
    let field = |name: &str| fields.get(name).map(|v| v.trim_matches(['"', '\'']).to_owned()).unwrap_or_default();
    Os { id: field("ID"), version: field("VERSION_ID"), name: field("PRETTY_NAME"), kernel, arch }
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

fn numa(files: &Files<'_>) -> Vec<NumaNode> {
    let node = |path: &&str| path.strip_prefix(NODES)?.strip_suffix("/cpulist")?.parse().ok();
    let mut nodes: Vec<NumaNode> = files
        .keys()
        .filter_map(|path| {
            let node = node(path)?;
            // `Node 0 MemTotal:       24684084 kB`
            let total = first(files, &format!("{NODES}{node}/meminfo"))?.split_once("MemTotal:");
            let memory = total.map_or(0, |(_, size)| kib(size));
            Some(NumaNode { node, cpus: first(files, path)?.to_owned(), memory })
        })
        .collect();
    nodes.sort_by_key(|n| n.node);
    nodes
}

fn infiniband(files: &Files<'_>, links: &[&str]) -> Vec<IbPort> {
    let mut ports = Vec::new();
    for path in files.keys() {
        let below = path.strip_prefix(INFINIBAND).and_then(|p| p.strip_suffix("/rate"));
        let Some((device, port)) = below.and_then(|p| p.split_once("/ports/")) else { continue };
        let file = |name: &str| first(files, &format!("{INFINIBAND}{device}/ports/{port}/{name}")).unwrap_or_default();
        let below = format!("{INFINIBAND}{device}/device/net/");
        // `56 Gb/sec (4X FDR)`, `2.5 Gb/sec (1X SDR)`
        let gbit: f64 = file("rate").split(' ').next().and_then(|r| r.parse().ok()).unwrap_or_default();
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

/// `ceph-mon@h1.service loaded active running Ceph cluster monitor daemon`
fn unit(line: &str) -> Option<Unit> {
    let mut words = line.split_ascii_whitespace();
    let (name, state) = (words.next()?, words.nth(1)?);
    Some(Unit { name: name.to_owned(), state: state.to_owned() })
}

fn ceph(lines: &[&str]) -> CephTraces {
    let mut traces = CephTraces::default();
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    for line in lines {
        match line.trim().split_once(' ') {
            // A directory whose name only looks like an id is none.
            Some(("container", path)) if last(path).parse::<uuid::Uuid>().is_ok() => traces.containers.push(last(path)),
            Some(("foreign", tool)) => traces.foreign.push(tool.to_owned()),
            Some(("mon", path)) => traces.mons.push(last(path).trim_start_matches("ceph-").to_owned()),
            _ if line.contains(" 0A ") => traces.mon_listens = true,
            _ if line.contains('=') => traces.conf = line.split_once('=').map(|(_, id)| id.trim().to_owned()),
            _ => {}
        }
    }
    traces
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
        // 127.127.1.1 is its own clock.
        let synchronised = fields[0] != "7F7F0101" && fields.last().is_some_and(|leap| *leap != "Not synchronised");
        facts.clock.offset = synchronised.then(|| fields[4].parse().ok()).flatten();
    }
}

/// Paragraphs of `Package:`, `Status:`, `Version:` and others, as dpkg keeps them.
fn software(facts: &mut Facts, lines: &[&str]) {
    let (mut package, mut installed) = ("", false);
    for (key, value) in lines.iter().filter_map(|line| line.split_once(": ")) {
        let field = match (key, package) {
            ("Package", _) => {
                (package, installed) = (value, false);
                continue;
            }
            ("Status", _) => {
                installed = value.ends_with(" installed");
                continue;
            }
            ("Version", "ceph-common") => &mut facts.software.ceph,
            ("Version", "ceph-osd") => &mut facts.software.ceph_osd,
            ("Version", "libvirt-daemon") => &mut facts.software.libvirt,
            ("Version", "qemu-system-x86" | "qemu-kvm-core") => &mut facts.software.qemu,
            _ => continue,
        };
        *field = installed.then(|| value.to_owned());
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
    fn a_disk_that_cannot_be_read_is_not_taken_for_empty() {
        let text = "@@ block\n{\"blockdevices\":[{\"name\":\"sdb\",\"type\":\"disk\",\"size\":512}]}\n\
                    @@ content\nnode /dev/sdb\nsdb unreadable\n@@ end\n";
        let facts = facts(text).unwrap();
        assert_eq!(facts.disks[0].content, ["sdb: unreadable"]);
        assert!(!facts.disks[0].is_empty());
    }

    #[test]
    fn a_cut_transcript_is_an_error_and_a_strange_one_is_not() {
        assert!(facts("@@ begin 1\n@@ files\nsys_vendor:Dell Inc.\n").is_err());
        let strange = facts("noise\n@@ net\nnot json\n@@ block\n{\n@@ cpu\nx\n@@ space\na b\n@@ end\n").unwrap();
        assert_eq!(strange, Facts::default());
    }

    #[test]
    fn both_ways_to_a_disk_are_one_disk_and_no_content() {
        let facts = facts(include_str!("testdata/multipath.txt")).unwrap();
        let paths: Vec<&str> = facts.disks.iter().map(|disk| disk.path.as_str()).collect();
        assert_eq!(paths, ["/dev/sda", "/dev/mapper/mpatha"]);
        let disk = facts.disk("/dev/disk/by-id/wwn-0x5000c500a1b20001").unwrap();
        assert!(disk.is_empty() && disk.multipath, "{disk:?}");
        assert_eq!(disk.stable_name(), Some("/dev/disk/by-id/wwn-0x5000c500a1b20001"));
        for way in ["/dev/sdb", "/dev/sdc"] {
            assert!(disk.paths.iter().any(|path| path == way) && facts.disk(way).is_none());
        }
        // Without multipath: told by the world wide name, and by the serial number where there is none.
        let plain = |wwn: &str| {
            let device = |name: &str| {
                format!(
                    r#"{{"name":"{name}","type":"disk","size":4000,"model":"ST4","serial":"Z1Z0AAAA","wwn":{wwn},"tran":"sas"}}"#
                )
            };
            let block = format!(r#"{{"blockdevices":[{},{}]}}"#, device("sdb"), device("sdc"));
            super::facts(&format!("@@ block\n{block}\n@@ content\nnode /dev/sdb\nnode /dev/sdc\n@@ end\n")).unwrap()
        };
        for wwn in [r#""0x5000c500a1b20001""#, "null"] {
            let disks = plain(wwn).disks;
            assert_eq!((disks.len(), disks[0].multipath), (1, false));
            assert_eq!(disks[0].paths, ["/dev/sdb", "/dev/sdc"]);
        }
    }

    #[test]
    fn disks_of_one_model_are_not_taken_for_one() {
        let device = |name: &str, serial: &str, wwn: &str| {
            format!(r#"{{"name":"{name}","type":"disk","size":4000,"model":"M","serial":"{serial}","wwn":{wwn}}}"#)
        };
        for (one, other) in [
            (device("sda", "0", "null"), device("sdb", "0", "null")),
            (device("sda", "S1234567", r#""a""#), device("sdb", "S1234567", r#""b""#)),
            (device("nvme0n1", "S1234567", "null"), device("nvme0n2", "S1234567", "null")),
        ] {
            let nodes = "node /dev/sda\nnode /dev/sdb\nnode /dev/nvme0n1\nnode /dev/nvme0n2";
            let text = format!("@@ block\n{{\"blockdevices\":[{one},{other}]}}\n@@ content\n{nodes}\n@@ end\n");
            assert_eq!(facts(&text).unwrap().disks.len(), 2, "{text}");
        }
    }

    #[test]
    fn addresses_that_do_not_last_are_told_apart() {
        let text = concat!(
            "@@ net\n",
            r#"[{"ifname":"eno1","link_type":"ether","addr_info":["#,
            r#"{"local":"10.0.0.1","prefixlen":24,"scope":"global","dynamic":true},"#,
            r#"{"local":"2001:db8::77","prefixlen":64,"scope":"global","temporary":true,"dynamic":true},"#,
            r#"{"local":"2001:db8::1","prefixlen":64,"scope":"global","dynamic":true,"mngtmpaddr":true},"#,
            r#"{"local":"fd00::1","prefixlen":64,"scope":"global"}]}]"#,
            "\n@@ end\n"
        );
        let facts = facts(text).unwrap();
        let nic = &facts.nics[0];
        assert_eq!(nic.addresses.len(), 4);
        assert_eq!(nic.temporary, ["2001:db8::77/64"]);
        assert_eq!(nic.lasting().collect::<Vec<_>>(), ["10.0.0.1/24", "fd00::1/64"]);
    }

    #[test]
    fn ceph_of_another_tool_leaves_traces() {
        let text = "@@ ceph\nforeign Rook /var/lib/rook/mon-a\ncontainer /var/lib/ceph/6c9a2a6e-5d6c-4d2b-9d59-0d6f7a1b2c3d\ncontainer /var/lib/ceph/a-b-c-d-e\n\
                    mon /var/lib/ceph/mon/ceph-h1\nfsid = 11111111-5d6c-4d2b-9d59-0d6f7a1b2c3d\n  \
                    2: 0100007F:0CE4 00000000:0000 0A 00000000:00000000 00:00000000\n@@ end\n";
        let ceph = facts(text).unwrap().ceph;
        assert_eq!(ceph.containers, ["6c9a2a6e-5d6c-4d2b-9d59-0d6f7a1b2c3d"]);
        assert_eq!(ceph.foreign, ["Rook /var/lib/rook/mon-a"]);
        assert_eq!((ceph.mons, ceph.mon_listens), (vec!["h1".to_owned()], true));
        assert_eq!(ceph.conf.as_deref(), Some("11111111-5d6c-4d2b-9d59-0d6f7a1b2c3d"));
    }
}
