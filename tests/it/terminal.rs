//! The built binary on a terminal.

use crate::run::{RACKHAND, hermetic};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A command on a terminal; ended with the value.
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Runs `rackhand` with these words in a directory.
    pub fn run(directory: &Path, words: &str, environment: &[(&str, &str)]) -> Terminal {
        let mut child = hermetic("script")
            .args(["-q", "-e", "-f", "-c", &format!("{RACKHAND} {words}"), "/dev/null"])
            .envs(environment.iter().copied())
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut from, to) = (child.stdout.take().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut piece) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..n]));
            }
        });
        let keys = child.stdin.take().unwrap();
        Terminal { child, keys, screen }
    }

    /// Presses keys; the command may have ended.
    pub fn types(&mut self, keys: &str) {
        let _ = self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush());
    }

    /// All that was shown so far.
    pub fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    /// Whether this was shown.
    pub fn shows(&self, text: &str) -> bool {
        self.screen().contains(text)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `look` gives a value, at most `limit`; says what it waited for when it does not.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < end, "waited {} s for: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}
