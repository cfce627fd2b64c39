//! Writers of other formats: what goes into a text that another program parses is written here, and nowhere else.
//!
//! Each writer puts any value into its format so that the parser reads exactly that value back, or refuses it.

mod curl;
mod plain;
mod xml;
mod yaml;

pub use curl::{CurlConfig, Unquotable, url_host};
pub use plain::plain;
pub use xml::xml;
pub use yaml::yaml;
