//! What a file means: rules that hold between values.

mod addresses;
mod all;
mod hosts;
mod listed;
mod names;
mod networks;
mod storage;

pub(super) use all::all;
