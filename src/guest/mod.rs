//! Guests: templates, definitions, addresses, placement, and starting each one at most once.

pub mod address;
pub mod agent;
pub mod claim;
pub mod create;
mod delete;
mod domain;
pub mod hold;
mod host_state;
pub mod image;
mod import;
mod inspect;
mod live;
mod machine;
mod make;
mod outlook;
pub mod placement;
mod probe;
mod promise;
mod rack;
mod seed;
mod select;
mod spec;
mod start;
mod stop;
mod strangers;
mod survey;
#[cfg(test)]
mod tests;
mod user_data;
mod view;

pub use delete::{delete, delete_reserved, protect};
pub use domain::{CEPH_USER, secret_uuid, xml};
pub use host_state::{HostState, Maintenance, read as read_host_states, set_maintenance};
pub use import::{Import, import, shown as shown_source};
pub use inspect::{DiskFile, inspect};
pub use live::{Foreign, Live, LiveDisk};
pub use machine::{common as common_machine, work_out as work_out_machine};
pub use make::{Made, make};
pub use outlook::{Outlook, rooms};
pub use probe::strangers;
pub use promise::{Promise, Promises, Turns, enter as enter_promise, read_all as read_promises};
pub use rack::{Rack, conclude};
pub use seed::Seed;
pub use user_data::{check_user_data, user_data_for_keys};
pub use select::Selection;
#[cfg(test)]
pub(crate) use spec::sample as sample_guest;
pub use spec::{Desired, Disk, Guest, INDEX, ImageRef, Machine, Nic, Stage, check_name, names};
pub use start::{Started, need, start};
pub use stop::{How, SHUTDOWN, reboot, stop};
pub use survey::{Standing, Survey};
pub use view::{GuestView, Overview, State, overview, view};
