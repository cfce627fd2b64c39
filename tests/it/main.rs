//! The built binary from outside, and the house it is built in. One binary: what needs root, a rack or a virtual host is
//! behind the feature `lab-tests` and in a module of its own, so that a filter chooses what a machine can run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what is wrong by panicking")]
#![allow(clippy::disallowed_methods, reason = "the tests run the binary and tools of this machine")]

mod house;
mod run;
mod terminal;

#[cfg(feature = "lab-tests")]
mod bare;
#[cfg(feature = "lab-tests")]
mod drills;
#[cfg(feature = "lab-tests")]
mod machine;
#[cfg(feature = "lab-tests")]
mod provisioned;
#[cfg(feature = "lab-tests")]
mod rack;
#[cfg(feature = "lab-tests")]
mod saved;
#[cfg(feature = "lab-tests")]
mod vm;
#[cfg(feature = "lab-tests")]
mod watching;
