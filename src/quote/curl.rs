//! curl's configuration, which curl is told on stdin: nothing of it is seen in a list of processes.

use std::fmt::Write as _;
use std::net::IpAddr;

/// A value that cannot stand in the text without becoming something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it holds a control character")]
pub struct Unquotable;

/// A configuration for `curl --config -`.
#[derive(Clone, Default)]
pub struct CurlConfig(String);

/// Only its length: it may hold a password.
impl std::fmt::Debug for CurlConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CurlConfig({} bytes)", self.0.len())
    }
}

impl CurlConfig {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Switches an option on.
    #[must_use]
    pub fn flag(mut self, name: &'static str) -> Self {
        let _ = writeln!(self.0, "{name}");
        self
    }

    /// Gives an option a value.
    ///
    /// # Errors
    /// When the value holds a control character: a line of the configuration ends at one.
    pub fn set(mut self, name: &'static str, value: &str) -> Result<Self, Unquotable> {
        if value.contains(char::is_control) {
            return Err(Unquotable);
        }
        let _ = writeln!(self.0, "{name} = \"{}\"", value.replace('\\', r"\\").replace('"', r#"\""#));
        Ok(self)
    }

    /// Tells after the answer its status and where it redirects to, on a line of its own.
    #[must_use]
    pub fn with_status(self) -> Self {
        CurlConfig(self.0 + "write-out = \"\\n%{http_code} %{redirect_url}\"\n")
    }

    /// The text for curl's stdin.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// An address as the host of a URL.
pub fn url_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What curl itself reads: the name of the file it writes to.
    fn read_by_curl(value: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let config =
            CurlConfig::new().flag("silent").set("url", "file:///dev/null").unwrap().set("output", value).unwrap();
        let mut child = std::process::Command::new("curl")
            .args(["-q", "--config", "-"])
            .current_dir(dir.path())
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), config.text().as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        let entry = std::fs::read_dir(dir.path()).unwrap().next().expect("no file").unwrap();
        entry.file_name().into_string().unwrap()
    }

    #[test]
    fn a_value_that_would_begin_a_line_of_its_own_is_refused() {
        for bad in ["/redfish/v1\noutput = /etc/passwd", "a\rb", "\0", "\u{85}", "a\tb"] {
            assert_eq!(CurlConfig::new().set("url", bad).unwrap_err(), Unquotable, "{bad:?}");
        }
        let config = CurlConfig::new().set("user", "root:s3cret").unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn curl_reads_what_was_written(value in "[^/\\pC#]{1,2}[\"\\\\' =:#a-zü]{0,16}x") {
            prop_assert_eq!(read_by_curl(&value), value);
        }
    }
}
