//! The seed: a small disk from which a guest learns its name, address and keys at its first boot (NoCloud).

use super::spec::Guest;
use crate::error::Failure;
use crate::inventory::GuestNetwork;
use std::fmt::Write as _;
use std::io::{Cursor, Write};

/// Size of the seed's disk; holds a FAT and half a megabyte of user data.
const SIZE: usize = 1 << 20;
/// The label NoCloud looks for, padded as FAT stores it.
const LABEL: [u8; 11] = *b"cidata     ";

/// What a guest's seed says.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed {
    /// Identity of this instance and its host name.
    pub meta_data: String,
    /// What cloud-init does at the first boot; may hold secrets.
    pub user_data: String,
    /// Addresses of the NICs.
    pub network_config: String,
}

/// Only the lengths: user data may hold secrets.
impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seed({} bytes of user data)", self.user_data.len())
    }
}

/// The cloud-config that lets these keys in, where no file is given.
pub fn user_data_for_keys(keys: &[String]) -> String {
    let mut text = "#cloud-config\n".to_owned();
    if !keys.is_empty() {
        text.push_str("disable_root: false\nssh_authorized_keys:\n");
        for key in keys {
            // JSON strings are YAML strings: no key can break out of the list.
            let _ = writeln!(text, "  - {}", serde_json::Value::from(key.trim()));
        }
    }
    text
}

impl Seed {
    /// The seed of a guest; `network` finds the networks of its NICs.
    ///
    /// # Errors
    /// When a NIC's network is not in the inventory any more.
    pub fn new<'a>(
        guest: &Guest,
        network: impl Fn(&str) -> Option<&'a GuestNetwork>,
        user_data: String,
    ) -> Result<Self, Failure> {
        let meta_data = format!("instance-id: {}\nlocal-hostname: {}\n", guest.uuid, guest.name);
        let mut text = "version: 2\nethernets:\n".to_owned();
        for (n, nic) in guest.nics.iter().enumerate() {
            let of = network(&nic.network)
                .ok_or_else(|| Failure::usage(format!("the inventory has no guest network `{}`", nic.network)))?;
            let _ = write!(
                text,
                "  net{n}:\n    match:\n      macaddress: \"{}\"\n    set-name: eth{n}\n    dhcp4: false\n    \
                 addresses:\n      - {}/{}\n",
                nic.mac,
                nic.address,
                of.cidr.prefix_len()
            );
            // The first NIC leads out; two default routes would compete.
            if let (Some(gateway), 0) = (of.gateway, n) {
                let all = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                let _ = write!(text, "    routes:\n      - to: {all}\n        via: {gateway}\n");
            }
            if !of.dns.is_empty() {
                text.push_str("    nameservers:\n      addresses:\n");
                for server in &of.dns {
                    let _ = writeln!(text, "        - {server}");
                }
            }
            // 1500 is what a NIC has anyway.
            if of.mtu != 1500 {
                let _ = writeln!(text, "    mtu: {}", of.mtu);
            }
        }
        Ok(Seed { meta_data, user_data, network_config: text })
    }

    /// The seed's disk: a FAT volume labelled `cidata`. The same seed gives the same bytes.
    ///
    /// # Errors
    /// When the user data is too large.
    pub fn disk(&self) -> Result<Vec<u8>, Failure> {
        let mut disk = Cursor::new(vec![0; SIZE]);
        let options = fatfs::FormatVolumeOptions::new().volume_label(LABEL).volume_id(0x5241_434b);
        fatfs::format_volume(&mut disk, options)?;
        {
            let volume = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new())?;
            let files = [
                ("meta-data", &self.meta_data),
                ("user-data", &self.user_data),
                ("network-config", &self.network_config),
            ];
            for (name, content) in files {
                let written = volume.root_dir().create_file(name).and_then(|mut file| {
                    file.write_all(content.as_bytes())?;
                    file.flush()
                });
                written.map_err(|e| Failure::usage(format!("{name} does not fit into the seed: {e}")))?;
            }
            volume.unmount()?;
        }
        Ok(disk.into_inner())
    }
}

/// Refuses user data that no guest would understand.
///
/// # Errors
/// When it is neither cloud-config, a script, nor another kind cloud-init knows.
pub fn check_user_data(text: &str, name: &str) -> Result<(), Failure> {
    let known =
        ["#cloud-config", "#!", "Content-Type:", "MIME-Version:", "#include", "#cloud-boothook", "## template:"];
    if known.iter().any(|start| text.starts_with(start)) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "user data {name} would be ignored by cloud-init: its first line says nothing about its kind"
    ))
    .hint("begin it with `#cloud-config`, or with `#!` for a script"))
}

#[cfg(test)]
mod tests {
    use super::super::spec::sample;
    use super::*;
    use std::io::Read;

    fn network() -> GuestNetwork {
        serde_json::from_value(serde_json::json!({
            "bridge": "br-lan", "cidr": "10.77.1.0/24", "gateway": "10.77.1.1", "dns": ["10.77.1.1"],
        }))
        .unwrap()
    }

    #[test]
    fn network_config_has_the_shape_guests_parse() {
        let network = network();
        let seed = Seed::new(&sample("web1"), |_| Some(&network), user_data_for_keys(&["ssh-ed25519 AAAA me".into()]));
        let seed = seed.unwrap();
        insta::assert_snapshot!(seed.network_config, @r#"
        version: 2
        ethernets:
          net0:
            match:
              macaddress: "52:54:12:34:56:78"
            set-name: eth0
            dhcp4: false
            addresses:
              - 10.77.1.20/24
            routes:
              - to: 0.0.0.0/0
                via: 10.77.1.1
            nameservers:
              addresses:
                - 10.77.1.1
        "#);
        insta::assert_snapshot!(seed.user_data, @r#"
        #cloud-config
        disable_root: false
        ssh_authorized_keys:
          - "ssh-ed25519 AAAA me"
        "#);
        assert!(seed.meta_data.contains("local-hostname: web1\n"));
    }

    #[test]
    fn the_disk_is_a_fat_volume_labelled_cidata_and_always_the_same() {
        let network = network();
        let seed = Seed::new(&sample("web1"), |_| Some(&network), "#cloud-config\n".into()).unwrap();
        let disk = seed.disk().unwrap();
        assert_eq!(disk, seed.disk().unwrap());
        let volume = fatfs::FileSystem::new(Cursor::new(disk), fatfs::FsOptions::new()).unwrap();
        assert_eq!(volume.volume_label_as_bytes().trim_ascii(), b"cidata");
        let mut text = String::new();
        volume.root_dir().open_file("network-config").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, seed.network_config);
    }

    #[test]
    fn user_data_without_a_kind_is_refused() {
        check_user_data("#cloud-config\n", "x").unwrap();
        check_user_data("#!/bin/sh\n", "x").unwrap();
        assert!(check_user_data("packages: []\n", "x").is_err());
    }

    #[test]
    fn too_much_user_data_is_refused() {
        let seed = Seed { meta_data: String::new(), user_data: "x".repeat(2 << 20), network_config: String::new() };
        assert!(seed.disk().unwrap_err().to_string().contains("user-data does not fit"));
    }
}
