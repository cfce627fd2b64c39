//! `inventory.yaml` to checked types.
//!
//! A file is read in four steps: text to a tree whose values know their place, the tree against the schema, the rules
//! that hold between values, and, where nothing was wrong, the model. Every step reports all it finds.

mod checks;
mod draft;
mod format;
mod load;
mod mistake;
mod model;
mod schema;
pub mod secret;
mod shape;
mod taken;
#[cfg(test)]
mod tests;
mod tree;
mod view;

pub use draft::{Draft, DraftBmc, DraftHost, DraftNetwork, counterpart};
pub use load::{load, parse};
pub use mistake::{Mistake, Mistakes, Span};
pub use model::*;
pub use schema::schema;
pub use taken::{Owner, Taken, is_edge};
