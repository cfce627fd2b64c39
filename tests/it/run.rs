//! The built binary as a user runs it, in an environment of its own.

use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use tempfile::TempDir;

/// The binary under test.
pub const RACKHAND: &str = env!("CARGO_BIN_EXE_rackhand");

/// What a command keeps of the environment of the tests: where programs, temporary files and the network are.
const KEPT: [&str; 7] = ["PATH", "TMPDIR", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// A program whose environment, terminal width and standard input do not depend on who runs the tests.
pub fn hermetic(program: &str) -> Command {
    let mut command = Command::new(program);
    let kept = KEPT.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
    command.env_clear().envs(kept).envs([
        ("COLUMNS", "100"),
        ("HOME", env!("CARGO_TARGET_TMPDIR")),
        ("LC_ALL", "C.UTF-8"),
        ("NO_COLOR", "1"),
        ("TERM", "dumb"),
        ("TZ", "UTC"),
        ("USER", "operator"),
    ]);
    command.stdin(Stdio::null());
    command
}

/// The built binary with these arguments.
pub fn binary(args: &[&str]) -> Command {
    let mut command = hermetic(RACKHAND);
    command.args(args);
    command
}

/// Runs a program of this machine that has to exit with 0, and gives its stdout.
#[cfg(feature = "lab-tests")]
pub fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", stderr(&output));
    stdout(&output)
}

/// What a command wrote to stdout.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command wrote to stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A command to run in a directory of its own: what it needs first, then [`Run::status`] runs it.
pub struct Run {
    command: Command,
    words: String,
    directory: Rc<TempDir>,
}

impl Run {
    /// `rackhand` with these arguments in a new, empty directory.
    pub fn new(args: &[&str]) -> Run {
        Run::inside(Rc::new(tempfile::tempdir().unwrap()), args)
    }

    fn inside(directory: Rc<TempDir>, args: &[&str]) -> Run {
        let mut command = binary(args);
        command.current_dir(directory.path());
        Run { command, words: format!("rackhand {}", args.join(" ")), directory }
    }

    /// A file in the directory.
    pub fn file(self, name: &str, text: &str) -> Run {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// A variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Run {
        self.command.env(name, value);
        self
    }

    /// Runs the command, which has to end with this code.
    pub fn status(mut self, code: i32) -> Ran {
        let output = self.command.output().expect("rackhand starts");
        let ran = Ran { words: self.words, out: stdout(&output), err: stderr(&output), directory: self.directory };
        assert_eq!(output.status.code(), Some(code), "{ran}");
        ran
    }
}

/// A command that has run, and what it is held to.
pub struct Ran {
    words: String,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
    directory: Rc<TempDir>,
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nstdout: {}\nstderr: {}", self.words, self.out, self.err)
    }
}

impl Ran {
    /// stdout is exactly this.
    pub fn stdout_is(self, text: &str) -> Ran {
        assert_eq!(self.out, text, "{self}");
        self
    }

    /// stderr is exactly this.
    pub fn stderr_is(self, text: &str) -> Ran {
        assert_eq!(self.err, text, "{self}");
        self
    }

    /// stderr has this in it.
    pub fn stderr_has(self, text: &str) -> Ran {
        assert!(self.err.contains(text), "no `{text}`: {self}");
        self
    }

    /// Neither stream has this in it.
    pub fn never_says(self, text: &str) -> Ran {
        assert!(!self.out.contains(text) && !self.err.contains(text), "`{text}`: {self}");
        self
    }

    /// The JSON document on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// A file of the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The text of a file of the directory.
    pub fn read(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The directory has exactly these files.
    pub fn files_are(self, names: &[&str]) -> Ran {
        let files = std::fs::read_dir(self.directory.path()).unwrap();
        let mut found: Vec<String> = files.map(|f| f.unwrap().file_name().to_string_lossy().into_owned()).collect();
        found.sort();
        assert_eq!(found, names, "{self}");
        self
    }

    /// The next command in the same directory.
    pub fn then(&self, args: &[&str]) -> Run {
        Run::inside(Rc::clone(&self.directory), args)
    }
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
