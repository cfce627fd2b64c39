//! Writers of the formats that templates write into, each a filter: what a format cannot hold is refused, never written.

use super::shell::quote;
use minijinja::{Environment, Error, ErrorKind};

/// Adds the filters to an environment.
pub(super) fn register(environment: &mut Environment<'_>) {
    environment.add_filter("shell", |word: String| plain(&word, "a word of a shell").map(|()| quote(&word)));
    environment.add_filter("line", |text: String| plain(&text, "one line").map(|()| text));
    environment.add_filter("conf", |text: String| conf(&text));
    environment
        .add_filter("unit", |text: String| plain(&text, "a setting of systemd").map(|()| text.replace('%', "%%")));
}

fn refuse(text: &str, what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{text:?} cannot be written as {what}"))
}

/// No format here lets a value go on in another line.
fn plain(text: &str, what: &str) -> Result<(), Error> {
    if text.chars().any(char::is_control) { Err(refuse(text, what)) } else { Ok(()) }
}

/// A string of libvirt's configuration files, which know no escapes.
fn conf(text: &str) -> Result<String, Error> {
    plain(text, "a string of libvirt's configuration")?;
    match (text.contains('"'), text.contains('\'')) {
        (false, _) => Ok(format!("\"{text}\"")),
        (true, false) => Ok(format!("'{text}'")),
        (true, true) => Err(refuse(text, "a string of libvirt's configuration")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::context;

    fn written(filter: &str, value: &str) -> Result<String, String> {
        let mut environment = Environment::new();
        register(&mut environment);
        environment.render_str(&format!("{{{{ v | {filter} }}}}"), context! { v => value }).map_err(|e| e.to_string())
    }

    #[test]
    fn what_a_format_cannot_hold_is_refused() {
        for filter in ["shell", "line", "conf", "unit"] {
            assert!(written(filter, "a\nb").unwrap_err().contains("cannot be written"), "{filter}");
            assert!(written(filter, "a\0b").is_err(), "{filter}");
        }
        assert!(written("conf", "a\"'b").is_err());
    }

    #[test]
    fn the_rest_is_written_so_that_its_reader_gets_it_back() {
        let table = [
            ("shell", "h1", "h1"),
            ("shell", "a b'c", "'a b'\\''c'"),
            ("line", "peer 10.0.0.1", "peer 10.0.0.1"),
            ("conf", "CN=h1", "\"CN=h1\""),
            ("conf", "a\"b", "'a\"b'"),
            ("unit", "50%", "50%%"),
        ];
        for (filter, value, expected) in table {
            let text = written(filter, value).unwrap();
            if filter == "shell" {
                let output =
                    std::process::Command::new("sh").args(["-c", &format!("printf %s {text}")]).output().unwrap();
                assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
            } else {
                assert_eq!(text, expected);
            }
        }
    }
}
