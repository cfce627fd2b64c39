//! The repository as its users see it: through requests, on a real file system.
#![allow(clippy::disallowed_methods, reason = "the tests run the program and the tools that can replace it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what is wrong by panicking"
)]

mod carry;
mod damage;
mod disk;
mod receive;
mod restore;
mod rounds;
