//! Guests that end alone, while their host is well: they are started again, or let go on.

mod caretaker;
mod ears;
mod rule;
#[cfg(test)]
mod tests;

pub use caretaker::Caretaker;
pub use rule::{Given, Order, Rule, Sight, Where};
