//! A host as it is: facts gathered in one round trip.

mod block;
mod facts;
mod nics;
mod parse;

pub use facts::*;
