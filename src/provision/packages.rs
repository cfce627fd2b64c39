//! What the packages are called on each distribution.

use crate::host::{Family, family};
use crate::inventory::{HostSpec, Role};

/// The packages of a host by what it does. Nothing is installed in a container that would set the machine's clock or
/// needs device-mapper.
pub fn packages(os: &str, version: &str, host: &HostSpec, container: bool) -> Result<Vec<String>, String> {
    let family = family(os, version)?;
    let redhat = family == Family::Redhat;
    let mut list = vec!["ceph-common", "ethtool", "ipmitool", "python3-rados", "python3-rbd"];
    list.extend(if redhat {
        // rpm itself brings a curl; the package of that name conflicts with the smaller one that most hosts have.
        &["iputils"][..]
    } else {
        &["curl", "iputils-arping", "iputils-ping", "udev"][..]
    });
    if !container {
        list.extend(["chrony", "lvm2", "smartmontools"]);
    }
    if host.has(Role::Mon) {
        list.push("ceph-mon");
    }
    if host.has(Role::Mgr) {
        list.push("ceph-mgr");
    }
    if host.has(Role::Osd) {
        list.push("ceph-osd");
        // A package of its own since Quincy on RHEL, and since Reef on Debian.
        if redhat || (os, version) == ("debian", "13") || os == "ubuntu" {
            list.push("ceph-volume");
        }
    }
    if host.has(Role::Guests) {
        list.extend(match family {
            Family::Debian => &[
                "libvirt-clients",
                "libvirt-daemon-system",
                "nftables",
                "qemu-block-extra",
                "qemu-system-x86",
                "qemu-utils",
            ][..],
            Family::Redhat => &[
                "libvirt-client",
                "libvirt-daemon",
                "libvirt-daemon-kvm",
                "nftables",
                "qemu-kvm",
                "qemu-kvm-block-rbd",
                "qemu-img",
            ][..],
        });
        if !container {
            list.push(if redhat { "edk2-ovmf" } else { "ovmf" });
        }
    }
    let mut list: Vec<String> = list.into_iter().map(str::to_owned).collect();
    list.sort();
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(roles: &str) -> HostSpec {
        let yaml = format!("{{name: h1, address: 10.0.0.1, storage_address: 10.1.0.1, roles: [{roles}]}}");
        serde_saphyr::from_str(&yaml).unwrap()
    }

    #[test]
    fn each_distribution_has_its_names() {
        let table = [
            ("debian", "12", "qemu-block-extra", "ceph-volume"),
            ("rocky", "9.4", "qemu-kvm-block-rbd", "qemu-system-x86"),
            ("ubuntu", "24.04", "ceph-volume", "qemu-kvm"),
            ("debian", "13", "ceph-volume", "libvirt-client"),
            ("almalinux", "10.0", "iputils", "curl"),
        ];
        for (os, version, has, lacks) in table {
            let list = packages(os, version, &host("mon, mgr, osd, guests"), false).unwrap();
            assert!(list.iter().any(|p| p == has), "{os} {version} has {has}");
            assert!(!list.iter().any(|p| p == lacks), "{os} {version} lacks {lacks}");
        }
    }

    #[test]
    fn a_host_gets_what_its_roles_need() {
        let list = packages("debian", "12", &host("guests"), false).unwrap();
        assert!(!list.iter().any(|p| p.starts_with("ceph-osd") || p.starts_with("ceph-mon")));
        assert!(list.iter().any(|p| p == "ceph-common"));
        let container = packages("debian", "12", &host("osd"), true).unwrap();
        assert!(!container.iter().any(|p| p == "chrony" || p == "lvm2"));
    }
}
