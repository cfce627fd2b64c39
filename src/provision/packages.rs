//! What the packages are called on each distribution.

use crate::inventory::{HostSpec, Role};

/// A family of distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Debian and Ubuntu: apt.
    Debian,
    /// RHEL and what is built from it: dnf. Written from its documentation and not tried on a host.
    Redhat,
}

impl Family {
    /// The name templates see.
    pub fn name(self) -> &'static str {
        match self {
            Family::Debian => "debian",
            Family::Redhat => "redhat",
        }
    }
}

/// Distributions and versions that are supported, with what Ceph they bring.
const SUPPORTED: &[(&str, &str)] = &[("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04")];

/// The family of a distribution by the `ID` and `VERSION_ID` of its os-release.
///
/// # Errors
/// What is supported, where this one is not.
pub fn family(os: &str, version: &str) -> Result<Family, String> {
    if SUPPORTED.contains(&(os, version)) {
        return Ok(Family::Debian);
    }
    let major = version.split('.').next().unwrap_or_default();
    if ["rhel", "rocky", "almalinux", "centos"].contains(&os) && ["9", "10"].contains(&major) {
        return Ok(Family::Redhat);
    }
    let list: Vec<String> = SUPPORTED.iter().map(|(os, version)| format!("{os} {version}")).collect();
    Err(format!("{os} {version} is not supported (supported: {})", list.join(", ")))
}

/// The packages of a host by what it does. Nothing is installed in a container that would set the machine's clock or
/// needs device-mapper.
pub fn packages(os: &str, version: &str, host: &HostSpec, container: bool) -> Result<Vec<String>, String> {
    let family = family(os, version)?;
    let redhat = family == Family::Redhat;
    let mut list = vec!["ceph-common", "curl", "ethtool", "ipmitool"];
    list.extend(if redhat {
        &["iputils", "python3-rados", "python3-rbd"][..]
    } else {
        &["iputils-ping", "iputils-arping", "python3-rados", "python3-rbd", "udev"][..]
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
            Family::Debian => {
                &["libvirt-clients", "libvirt-daemon-system", "qemu-block-extra", "qemu-system-x86", "qemu-utils"][..]
            }
            Family::Redhat => &[
                "libvirt-client",
                "libvirt-daemon",
                "libvirt-daemon-kvm",
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

    #[test]
    fn other_systems_are_refused_with_the_list() {
        assert!(family("debian", "11").unwrap_err().contains("debian 12"));
        assert!(family("arch", "").is_err());
        assert_eq!(family("almalinux", "9.3"), Ok(Family::Redhat));
    }
}
