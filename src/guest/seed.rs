//! The seed: a small disk from which a guest learns its name, address and keys at its first boot (NoCloud).

use super::spec::Guest;
use crate::error::Failure;
use crate::inventory::GuestNetwork;
use crate::quote::yaml;
use std::fmt::Write as _;
use std::io::{Cursor, Read, Write};

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
    pub user_data: Vec<u8>,
    /// Addresses of the NICs.
    pub network_config: String,
}

/// Only the lengths: user data may hold secrets.
impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seed({} bytes of user data)", self.user_data.len())
    }
}

impl Seed {
    /// The seed of a guest; `network` finds the networks of its NICs.
    ///
    /// # Errors
    /// When a NIC's network is not in the inventory any more.
    pub fn new<'a>(
        guest: &Guest,
        network: impl Fn(&str) -> Option<&'a GuestNetwork>,
        user_data: Vec<u8>,
    ) -> Result<Self, Failure> {
        let meta_data =
            format!("instance-id: {}\nlocal-hostname: {}\n", yaml(&guest.uuid.to_string()), yaml(&guest.name));
        let mut text = "version: 2\nethernets:\n".to_owned();
        for (n, nic) in guest.nics.iter().enumerate() {
            let of = network(&nic.network)
                .ok_or_else(|| Failure::usage(format!("the inventory has no guest network `{}`", nic.network)))?;
            // Quoted, all of them: `1:2:3:4:5:6:7:8` is a number to base 60 for PyYAML.
            let _ = write!(
                text,
                "  net{n}:\n    match:\n      macaddress: {}\n    set-name: eth{n}\n    dhcp4: false\n    \
                 addresses:\n      - {}\n",
                yaml(&nic.mac),
                yaml(&format!("{}/{}", nic.address, of.cidr.prefix_len()))
            );
            // The first NIC leads out; two default routes would compete.
            if let (Some(gateway), 0) = (of.gateway, n) {
                let all = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                let (to, via) = (yaml(all), yaml(&gateway.to_string()));
                let _ = write!(text, "    routes:\n      - to: {to}\n        via: {via}\n");
            }
            if !of.dns.is_empty() {
                text.push_str("    nameservers:\n      addresses:\n");
                for server in &of.dns {
                    let _ = writeln!(text, "        - {}", yaml(&server.to_string()));
                }
            }
            // 1500 is what a NIC has anyway.
            if of.mtu != 1500 {
                let _ = writeln!(text, "    mtu: {}", of.mtu);
            }
        }
        Ok(Seed { meta_data, user_data, network_config: text })
    }

    /// The user data of a seed's disk.
    ///
    /// # Errors
    /// When it is no seed.
    pub fn user_data_of(disk: &[u8]) -> Result<Vec<u8>, Failure> {
        let volume = fatfs::FileSystem::new(Cursor::new(disk.to_vec()), fatfs::FsOptions::new())?;
        let mut user_data = Vec::new();
        volume.root_dir().open_file("user-data")?.read_to_end(&mut user_data)?;
        Ok(user_data)
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
                ("meta-data", self.meta_data.as_bytes()),
                ("user-data", self.user_data.as_slice()),
                ("network-config", self.network_config.as_bytes()),
            ];
            for (name, content) in files {
                let written = volume.root_dir().create_file(name).and_then(|mut file| {
                    file.write_all(content)?;
                    file.flush()
                });
                written.map_err(|e| Failure::usage(format!("{name} does not fit into the seed: {e}")))?;
            }
            volume.unmount()?;
        }
        Ok(disk.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::sample;
    use super::super::user_data::user_data_for_keys;
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::io::Read;
    use std::net::IpAddr;

    fn network() -> GuestNetwork {
        serde_json::from_value(serde_json::json!({
            "bridge": "br-lan", "cidr": "10.77.1.0/24", "gateway": "10.77.1.1", "dns": ["10.77.1.1"],
        }))
        .unwrap()
    }

    #[test]
    fn network_config_has_the_shape_guests_parse() {
        let network = network();
        let seed =
            Seed::new(&sample("web1"), |_| Some(&network), user_data_for_keys(&["ssh-ed25519 AAAA me".into()]).into());
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
              - "10.77.1.20/24"
            routes:
              - to: "0.0.0.0/0"
                via: "10.77.1.1"
            nameservers:
              addresses:
                - "10.77.1.1"
        "#);
        insta::assert_snapshot!(String::from_utf8(seed.user_data).unwrap(), @r#"
        #cloud-config
        disable_root: false
        ssh_authorized_keys:
          - "ssh-ed25519 AAAA me"
        "#);
        assert!(seed.meta_data.contains("local-hostname: \"web1\"\n"));
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

    fn read(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn names_that_look_like_other_types_stay_names() {
        let network = network();
        for name in ["42", "007", "0x1f", "on", "no", "null", "2026-11-27", "true", "1e3", "0"] {
            super::super::spec::check_name(name).unwrap();
            let seed = Seed::new(&sample(name), |_| Some(&network), Vec::new()).unwrap();
            assert_eq!(read(&seed.meta_data)["local-hostname"], Value::from(name));
            assert!(seed.meta_data.contains(&format!("local-hostname: \"{name}\"\n")));
        }
    }

    proptest! {
        #[test]
        fn a_yaml_parser_reads_the_seed_as_it_was_meant(
            name in "[a-z0-9-]{1,63}",
            keys in prop::collection::vec(any::<String>(), 0..4),
            address in any::<[u16; 8]>(),
            gateway in any::<[u16; 8]>(),
            dns in prop::collection::vec(any::<[u8; 4]>(), 0..3),
        ) {
            let mut network = network();
            network.cidr = "fd00::/64".parse().unwrap();
            network.gateway = Some(IpAddr::from(gateway));
            network.dns = dns.iter().map(|a| IpAddr::from(*a)).collect();
            let mut guest = sample(&name);
            guest.nics[0].address = IpAddr::from(address);
            let seed = Seed::new(&guest, |_| Some(&network), user_data_for_keys(&keys).into()).unwrap();
            let meta = json!({"instance-id": guest.uuid.to_string(), "local-hostname": name});
            prop_assert_eq!(read(&seed.meta_data), meta);
            let config = read(&seed.network_config);
            let nic = &config["ethernets"]["net0"];
            prop_assert_eq!(&nic["match"]["macaddress"], &Value::from(guest.nics[0].mac.clone()));
            prop_assert_eq!(&nic["addresses"], &json!([format!("{}/64", IpAddr::from(address))]));
            prop_assert_eq!(&nic["routes"], &json!([{"to": "::/0", "via": IpAddr::from(gateway).to_string()}]));
            if !dns.is_empty() {
                prop_assert_eq!(&nic["nameservers"]["addresses"], &json!(network.dns));
            }
            let user = read(std::str::from_utf8(&seed.user_data).unwrap());
            let trimmed: Vec<&str> = keys.iter().map(|key| key.trim()).collect();
            prop_assert_eq!(user.get("ssh_authorized_keys").cloned().unwrap_or(json!([])), json!(trimmed));
        }
    }

    #[test]
    fn too_much_user_data_is_refused() {
        let seed = Seed { meta_data: String::new(), user_data: vec![b'x'; 2 << 20], network_config: String::new() };
        assert!(seed.disk().unwrap_err().to_string().contains("user-data does not fit"));
    }
}
