//! `inventory.yaml` to checked types.
//!
//! A file is read in four steps: text to a tree whose values know their place, the tree against the schema, the rules
//! that hold between values, and, where nothing was wrong, the model. Every step reports all it finds.

mod checks;
mod diagnostic;
mod draft;
mod format;
mod load;
mod model;
mod schema;
mod schema_check;
pub mod secret;
mod spanned_yaml;
mod taken;
#[cfg(test)]
mod tests;
mod view;

pub use diagnostic::{Diagnostic, Diagnostics, Span};
pub use draft::{Draft, DraftBmc, DraftHost, DraftNetwork, counterpart};
pub use load::{load, parse};
pub use model::*;
pub use schema::schema;
pub use taken::{Owner, Taken, is_edge};
