//! Guests: templates, definitions, addresses, placement, and starting each one at most once.

pub mod address;
mod address_conflict;
mod admission;
pub mod agent;
mod archive;
mod capacity;
pub mod claim;
pub mod create;
mod delete;
mod desired;
mod domain;
mod domain_inventory;
mod ended;
mod formats;
mod guest_context;
pub mod hold;
mod host_state;
pub mod image;
mod import;
mod inspect;
mod launch;
mod live;
mod machine;
mod maintenance;
mod make;
pub mod offer;
pub mod placement;
mod planning_input;
mod probe;
mod reservation;
mod resume;
mod seed;
mod select;
mod settlement;
mod sides;
pub mod snapshots;
mod source;
mod spec;
mod start;
mod start_step;
mod stop;
#[cfg(test)]
mod tests;
mod together;
mod turns;
mod user_data;
mod verdict;
mod view;

pub use admission::enter as enter_reservation;
pub use delete::{delete, delete_reserved, protect, set_failover};
#[cfg(test)]
pub(crate) use domain::sample_inventory;
pub use domain::{CEPH_USER, secret_uuid, xml};
pub use domain_inventory::{DomainInventory, StartState};
pub use ended::{Ending, endings, stays_down};
pub use guest_context::{GuestContext, conclude};
pub use host_state::{HostState, Maintenance, read as read_host_states, set_maintenance};
pub use import::{Import, import};
pub use inspect::{DiskFile, inspect};
pub use live::{Foreign, Live, LiveDisk};
pub use machine::{common as common_machine, work_out as work_out_machine};
pub use maintenance::{begin as begin_maintenance, end as end_maintenance};
pub use make::{Made, make};
pub use planning_input::{PlanningInput, rooms};
pub use probe::conflicts;
pub use reservation::{Reservation, Reservations, read_all as read_reservations};
pub use resume::resume;
pub use seed::Seed;
pub use select::Selection;
pub use settlement::{Courtesy, Settled, Settlement};
pub use sides::Sides;
pub use source::shown as shown_source;
#[cfg(test)]
pub(crate) use spec::sample as sample_guest;
pub use spec::{
    Desired, Disk, FailoverPolicy, Guest, INDEX, ImageRef, Machine, Nic, Restoring, Stage, check_name, names,
};
pub use start::{Started, need, restart_at, start, start_at, unless_power_is_open};
pub use start_step::{FollowStarts, StartStep};
pub use stop::{How, SHUTDOWN, reboot, stop};
pub use turns::Turns;
pub use user_data::{check_user_data, user_data_for_keys};
pub use verdict::{Side, StartVerdict, Verdict, judge, judge_start};
pub use view::{GuestView, Overview, State, overview, view};
