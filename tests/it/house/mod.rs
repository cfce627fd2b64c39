//! What needs neither root nor a rack.

mod completion;
mod docs;
mod generated;
mod imports;
mod inventory;
mod layers;
