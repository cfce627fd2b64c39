//! What needs neither root nor a rack.

mod completion;
mod docs;
mod generated;
mod inventory;
mod layers;
