//! What runs on the rack that `RACKHAND_TEST_RACK` names, once it is provisioned.

mod backup;
mod completion;
mod guest;
mod guest_inside;
mod guest_order;
mod host_loss;
mod image;
mod movement;
mod provision;
mod status;
