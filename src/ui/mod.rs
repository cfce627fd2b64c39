//! One event stream to stderr, one result to stdout.
//!
//! Jobs tell the [`Ui`] what happens; it draws bars on a terminal, plain lines elsewhere, or JSON lines with
//! `--events json`. Results go to stdout alone, as a table for people or one JSON document for scripts.

mod cancel_level;
mod events;
mod paint;
mod table;
mod terminal;

pub use cancel_level::{CancelLevel, CompletionGuard, ShutdownPolicy};
pub use events::{Event, EventStyle, Job, Outcome};
pub use table::{Table, counted};
pub use terminal::{ColorChoice, OutputFormat, Ui};
