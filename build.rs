//! The version that `--version` tells, with the commit where there is one.
#![allow(clippy::disallowed_methods, reason = "asks git while it builds")]

use std::process::Command;

/// What an archive of the sources (`git archive`) has in place of its placeholder.
const ARCHIVED: &str = include_str!("src/commit.txt");

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/commit.txt");
    // A build for development tells none: it would be made anew with each commit.
    let released = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = if ARCHIVED.starts_with("$Format") {
        released.then(of_checkout).flatten()
    } else {
        Some(ARCHIVED.trim().to_owned())
    };
    let version = env!("CARGO_PKG_VERSION");
    let version = commit.map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=RACKHAND_VERSION={version}");
}

/// The commit that is checked out, and its day; marked where the files are not those of the commit.
fn of_checkout() -> Option<String> {
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    for path in ["src", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let commit = git(&["log", "-1", "--format=%h of %cs"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    Some(if changed { format!("{commit}, changed") } else { commit })
}

/// What git says, where it is installed and this is a checkout.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
