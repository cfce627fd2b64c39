//! What makes a host of the bare image its own: name, addresses, keys; written into its overlay before it first boots.

use super::cgroup::Cgroup;
use super::names::{HostPlan, MANAGEMENT_NIC, STORAGE_NIC};
use super::store::{HostDir, LabDir, make_dir, write};
use super::tool::Tool;
use crate::error::{Failure, ResultExt};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use uuid::Uuid;

/// Vendor in the hosts' DMI strings and BMCs.
pub(super) const VENDOR: &str = "rackhand";
/// Model in the hosts' DMI strings and BMCs.
pub(super) const MODEL: &str = "Lab Container";

/// Makes a host's directories and files, for its first boot ever.
pub(super) async fn prepare(tools: &Cgroup, lab: &LabDir, host: HostPlan, operator_key: &str) -> Result<(), Failure> {
    let dir = lab.host(&host.name());
    prepare_directories(&dir, host)?;
    let upper = dir.upper();
    make_dir(&upper)?;
    write(&upper.join("etc/hostname"), format!("{}\n", host.name()).as_bytes(), 0o644)?;
    write(&upper.join("etc/hosts"), hosts_file(host).as_bytes(), 0o644)?;
    write(&upper.join("etc/machine-id"), format!("{}\n", Uuid::new_v4().simple()).as_bytes(), 0o444)?;
    for (nic, address) in [(MANAGEMENT_NIC, host.management()), (STORAGE_NIC, host.storage())] {
        let file = upper.join(format!("etc/systemd/network/50-{nic}.network"));
        write(&file, network_file(nic, address).as_bytes(), 0o644)?;
    }
    write(&upper.join("root/.ssh/authorized_keys"), operator_key.as_bytes(), 0o600)?;
    for private in ["root", "root/.ssh"] {
        fs::set_permissions(upper.join(private), fs::Permissions::from_mode(0o700))?;
    }
    make_dir(&upper.join("etc/ssh"))?;
    keygen(tools, &upper.join("etc/ssh/ssh_host_ed25519_key"), &host.name()).await
}

/// Makes the directories a host's supervisor mounts things on, and its DMI strings.
pub(super) fn prepare_directories(dir: &HostDir, host: HostPlan) -> Result<(), Failure> {
    for path in [dir.work(), dir.root(), dir.sys(), dir.bmc()] {
        make_dir(&path)?;
    }
    let id = dir.dmi().join("dmi/id");
    let strings = [
        ("sys_vendor", VENDOR.to_owned()),
        ("board_vendor", VENDOR.to_owned()),
        ("chassis_vendor", VENDOR.to_owned()),
        ("product_name", MODEL.to_owned()),
        ("product_serial", host.serial()),
        ("chassis_serial", host.serial()),
        ("board_serial", host.serial()),
        ("bios_vendor", VENDOR.to_owned()),
        ("bios_version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    for (name, value) in strings {
        // Serial numbers are for root alone, as on hardware.
        let mode = if name.ends_with("_serial") { 0o400 } else { 0o444 };
        write(&id.join(name), format!("{value}\n").as_bytes(), mode)?;
    }
    Ok(())
}

/// A new key pair without a passphrase.
pub(super) async fn keygen(tools: &Cgroup, file: &Path, comment: &str) -> Result<(), Failure> {
    let args = ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"];
    Tool::new("ssh-keygen").args(args).arg(file).within(tools).run().await.map(drop)
}

/// The line of a host in a known_hosts file, from its public key file.
pub(super) fn known_host(lab: &LabDir, host: HostPlan) -> Result<String, Failure> {
    let file = lab.host(&host.name()).upper().join("etc/ssh/ssh_host_ed25519_key.pub");
    let public = fs::read_to_string(&file).while_doing(|| format!("cannot read {}", file.display()))?;
    let key: Vec<&str> = public.split_whitespace().take(2).collect();
    Ok(format!("{},{} {}\n", host.name(), host.management(), key.join(" ")))
}

fn hosts_file(host: HostPlan) -> String {
    format!("127.0.0.1\tlocalhost\n127.0.1.1\t{}\n::1\tlocalhost ip6-localhost ip6-loopback\n", host.name())
}

fn network_file(nic: &str, address: Ipv4Addr) -> String {
    format!("[Match]\nName={nic}\n\n[Network]\nAddress={address}/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n")
}

/// What makes stable names of a host's disks at boot, given the loop devices they are on this time.
pub(super) fn disk_links(host: HostPlan, loops: &[String]) -> String {
    let mut text = "# Written by the lab at every boot.\nd /dev/disk/by-id 0755 root root -\n".to_owned();
    for (disk, node) in (0u8..).zip(loops) {
        let node = node.trim_start_matches("/dev/");
        text += &format!("L+ {} - - - - ../../{node}\n", host.disk_path(disk));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::names::Plan;
    use super::*;

    #[test]
    fn files_of_a_host() {
        let host = Plan::new(3).host(2);
        insta::assert_snapshot!(network_file("eno1", host.management()), @r"
        [Match]
        Name=eno1

        [Network]
        Address=10.77.3.12/24
        LinkLocalAddressing=no
        IPv6AcceptRA=no
        ");
        insta::assert_snapshot!(disk_links(host, &["/dev/loop5".into(), "/dev/loop9".into()]), @r"
        # Written by the lab at every boot.
        d /dev/disk/by-id 0755 root root -
        L+ /dev/disk/by-id/rackhand-RH00302-disk0 - - - - ../../loop5
        L+ /dev/disk/by-id/rackhand-RH00302-disk1 - - - - ../../loop9
        ");
    }
}
