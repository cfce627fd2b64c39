//! Stories and tables of the judgement.

mod bench;
mod properties;
mod stories;
