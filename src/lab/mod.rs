//! A rack on this machine: hosts as containers that boot their own systemd, two networks, disks, and a BMC each.
//!
//! Whatever runs of a host is in the control group and the namespaces of its supervisor: when that dies, the kernel
//! takes the host with its mounts and loop devices. What stays has a name computed from the lab's own, so that a lab
//! can be removed however far it got.

mod archive;
mod bmc;
mod cgroup;
mod chassis;
mod chassis_command;
mod control;
mod cpio;
mod disk;
mod down;
mod fru;
pub mod guest_image;
mod hardware;
mod image;
mod initramfs;
mod inventory_file;
mod list;
mod login;
mod machine;
mod mounts;
mod names;
mod network;
mod operate;
mod packages;
mod preflight;
mod redfish;
mod redfish_tree;
mod rootfs;
mod save;
mod site;
mod stop;
mod store;
mod supervisor;
mod sweep;
mod tool;
mod up;
mod vm;
mod vm_image;

pub use chassis_command::chassis;
pub use control::Power;
pub use down::down;
pub use list::{HostView, LabView, list, saved};
pub use names::{LabName, MAX_DISKS, MAX_HOSTS};
pub use operate::{Network, PowerAction, cut, find, heal, partition, power, ssh_command};
pub use save::{forget, save};
pub use store::HostKind;
pub use supervisor::run as supervise;
pub use up::{NewLab, up};
