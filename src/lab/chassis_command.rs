//! What the IPMI simulator calls: `get power`, `set power 0`, `set reset 1`, `set shutdown 1`.

use super::control::{self, Power, Request};
use super::names::{LabName, find_host};
use super::store::LabDir;
use crate::error::Failure;

/// Answers the simulator's call; the text is what it reads.
///
/// # Errors
/// When the host does not obey, which the simulator passes on as a refused command.
pub async fn chassis(name: &LabName, host: &str, words: &[String]) -> Result<String, Failure> {
    let lab = LabDir::of(name);
    let record = lab.record()?;
    let host = find_host(record.plan(), record.hosts, host)?;
    let request = request(words)?;
    let state = control::ask(&host.name(), &lab.host(&host.name()), request).await?;
    Ok(if request == Request::Status { answer(state.power) } else { String::new() })
}

fn answer(power: Power) -> String {
    format!("power:{}", u8::from(power == Power::On))
}

fn request(words: &[String]) -> Result<Request, Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["get", "power"] => Ok(Request::Status),
        ["set", "power", "0"] => Ok(Request::Off),
        ["set", "power", "1"] => Ok(Request::On),
        ["set", "reset", "1"] => Ok(Request::Reset),
        ["set", "shutdown", "1"] => Ok(Request::Soft),
        other => Err(Failure::usage(format!("this BMC cannot `{}`", other.join(" ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_one_request() {
        let ask = |text: &str| request(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for (text, expected) in [
            ("get power", Request::Status),
            ("set power 0", Request::Off),
            ("set power 1", Request::On),
            ("set reset 1", Request::Reset),
            ("set shutdown 1", Request::Soft),
        ] {
            assert_eq!(ask(text).unwrap(), expected);
        }
        assert!(ask("set boot pxe").is_err());
        assert_eq!(answer(Power::Off), "power:0");
    }
}
