//! The `rackhand` command: everything lives in the library.

fn main() -> std::process::ExitCode {
    rackhand::cli::main()
}
