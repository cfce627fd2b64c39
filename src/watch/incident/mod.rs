//! What happened, for people and for whoever goes on: one document an incident, with its timeline, evidence and proofs.

mod availability;
mod document;
mod explain;
mod journal;
mod scribe;
mod store;

pub use availability::{Availability, GuestAvailability, availability};
pub use document::{Incident, Outcome, Stage, Step};
pub use explain::{explain, incident_table};
pub use journal::Journal;
pub use scribe::Scribe;
pub use store::{all, one, unfinished};
