//! The repository as its users see it: through requests, on a real file system.

mod damage;
mod disk;
mod receive;
mod restore;
mod rounds;
