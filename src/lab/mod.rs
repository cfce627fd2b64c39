//! A rack on this machine, and guests to try it with.

pub mod guest_image;
mod tool;
