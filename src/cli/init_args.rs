//! The flags of `rackhand init`.

use crate::inventory::{AddressRange, BmcKind, DraftBmc};
use clap::Args;
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;

/// Write a new inventory from flags, from what hosts report, or from answers.
///
/// With --host, it is written from flags alone; with --probe, from what the hosts report over SSH; with neither, from
/// answers to questions on the terminal. The file has comments and a new cluster id, and passes `inventory check`.
#[derive(Clone, Debug, Default, Args)]
pub struct InitArgs {
    /// File to write, `-` for stdout [default: that of --inventory].
    #[arg(long, value_name = "FILE")]
    pub(super) output_file: Option<PathBuf>,
    /// Replace the file where there is one.
    #[arg(long)]
    pub(super) force: bool,
    /// Name of the cluster [default: rack].
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Management network.
    #[arg(long, value_name = "CIDR")]
    pub(super) management: Option<IpNet>,
    /// Storage network [default: the management network].
    #[arg(long, value_name = "CIDR")]
    pub(super) storage: Option<IpNet>,
    /// A host; without STORAGE, its storage address has the same host part as ADDRESS.
    #[arg(long = "host", value_name = "NAME=ADDRESS[,STORAGE]", value_parser = host_flag, conflicts_with = "probe")]
    pub(super) hosts: Vec<HostFlag>,
    /// A device for an OSD, by its stable path.
    #[arg(long = "osd", value_name = "HOST=DEVICE", value_parser = osd_flag, conflicts_with = "probe")]
    pub(super) osds: Vec<(String, PathBuf)>,
    /// The BMC of a host; KIND is `redfish` (the default) or `ipmi`.
    #[arg(long = "bmc", value_name = "HOST=[KIND:]ADDRESS", value_parser = bmc_flag, conflicts_with = "probe")]
    pub(super) bmcs: Vec<(String, DraftBmc)>,
    /// Hosts to ask for their names, networks, empty disks and BMCs.
    #[arg(long, value_name = "ADDRESS", num_args = 1..)]
    pub(super) probe: Vec<IpAddr>,
    /// Login name.
    #[arg(long)]
    pub(super) user: Option<String>,
    /// Private key file.
    #[arg(long, value_name = "FILE")]
    pub(super) identity: Option<PathBuf>,
    /// The cluster's own known_hosts file.
    #[arg(long, value_name = "FILE")]
    pub(super) known_hosts: Option<PathBuf>,
    /// The storage network is InfiniBand.
    #[arg(long)]
    pub(super) infiniband: bool,
    /// MTU of the storage network.
    #[arg(long, value_name = "BYTES")]
    pub(super) storage_mtu: Option<u32>,
    /// Addresses of the management network that guests may get.
    #[arg(long = "guest-range", value_name = "FIRST-LAST")]
    pub(super) guest_ranges: Vec<AddressRange>,
    /// Default route of the guests.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) gateway: Option<IpAddr>,
}

/// A host as `--host` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostFlag {
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) storage: Option<IpAddr>,
}

/// Reads `NAME=ADDRESS[,STORAGE]`.
pub(super) fn host_flag(text: &str) -> Result<HostFlag, String> {
    let (name, addresses) = text.split_once('=').ok_or("write NAME=ADDRESS or NAME=ADDRESS,STORAGE")?;
    let (address, storage) = match addresses.split_once(',') {
        Some((address, storage)) => (address, Some(storage)),
        None => (addresses, None),
    };
    let parse = |a: &str| a.parse::<IpAddr>().map_err(|_| format!("`{a}` is no IP address"));
    Ok(HostFlag { name: name.to_owned(), address: parse(address)?, storage: storage.map(parse).transpose()? })
}

/// Reads `HOST=DEVICE`.
pub(super) fn osd_flag(text: &str) -> Result<(String, PathBuf), String> {
    let (host, device) = text.split_once('=').ok_or("write HOST=DEVICE, the device by its path in /dev/disk/by-id")?;
    Ok((host.to_owned(), PathBuf::from(device)))
}

/// Reads `HOST=[KIND:]ADDRESS`.
pub(super) fn bmc_flag(text: &str) -> Result<(String, DraftBmc), String> {
    let (host, place) = text.split_once('=').ok_or("write HOST=ADDRESS or HOST=ipmi:ADDRESS")?;
    let said = [BmcKind::Redfish, BmcKind::Ipmi]
        .into_iter()
        .find_map(|kind| Some((kind, place.strip_prefix(kind.word())?.strip_prefix(':')?)));
    let (kind, address) = said.unwrap_or((BmcKind::Redfish, place));
    let address = address.parse().map_err(|_| format!("`{address}` is no IP address"))?;
    Ok((host.to_owned(), DraftBmc { kind, address }))
}
