//! `rackhand-store`: one request on the first line of its input, JSON lines on its output.

use rackhand_repository as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::FAILURE
}
