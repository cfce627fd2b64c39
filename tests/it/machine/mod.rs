//! What needs root and the tools of the lab on this machine, and no rack.

mod guest_image;
mod lab;
mod probe;
mod ssh;
