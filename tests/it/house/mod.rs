//! What needs neither root nor a rack.

mod docs;
mod inventory;
mod layers;
