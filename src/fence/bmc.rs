//! A BMC's power state and whose BMC it is, read over Redfish (curl) or IPMI (ipmitool).
//!
//! The commands run wherever there is a way to the management network: on the operator's machine or on a peer. The
//! password travels on stdin alone.

use crate::inventory::secret::Secret;
use crate::inventory::{BmcKind, BmcSpec};
use crate::ssh::{Exec, Output, Remote, RemoteError};
use serde::Serialize;
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;

/// What one request may take; a BMC is slow, but not slower than this.
const REQUEST: Duration = Duration::from_secs(10);

/// The question; without `-v` a refused password looks like a BMC that does not answer.
const POWER: &str = "-v chassis power status";

/// Power state of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// It is on.
    On,
    /// It is off.
    Off,
    /// Anything else, in the BMC's words.
    Other(String),
}

/// What a BMC says about its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BmcState {
    /// Power state.
    pub power: Power,
    /// Every serial number and service tag it has for the machine.
    pub serials: Vec<String>,
    /// Model, where it says.
    pub model: String,
}

/// Why a BMC gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BmcError {
    /// The place the command ran at has no program for it.
    #[error("{place} has no {tool}")]
    NoTool {
        /// Where.
        place: String,
        /// curl or ipmitool.
        tool: &'static str,
    },
    /// No answer; this says nothing about the machine.
    #[error("no answer from {address}, asked from {place}: {reason}")]
    Unreachable {
        /// Where it was asked from.
        place: String,
        /// The BMC.
        address: IpAddr,
        /// What the program said.
        reason: String,
    },
    /// User or password are wrong.
    #[error("{address} refuses user {user}: wrong user name or password")]
    Login {
        /// The BMC.
        address: IpAddr,
        /// The user.
        user: String,
    },
    /// It answered something else than expected.
    #[error("{address} answered strangely: {reason}")]
    Strange {
        /// The BMC.
        address: IpAddr,
        /// What is strange.
        reason: String,
    },
}

impl BmcError {
    /// Whether it may go better from another place.
    pub fn is_about_the_place(&self) -> bool {
        matches!(self, Self::NoTool { .. } | Self::Unreachable { .. })
    }
}

/// Asks a BMC from a place: the operator's machine or a peer.
///
/// # Errors
/// When it cannot be asked from there, refuses the login or answers strangely.
pub async fn look(place: &dyn Remote, bmc: &BmcSpec, password: &Secret) -> Result<BmcState, BmcError> {
    match bmc.kind {
        BmcKind::Redfish => redfish(place, bmc, password).await,
        BmcKind::Ipmi => ipmi(place, bmc, password).await,
    }
}

async fn redfish(place: &dyn Remote, bmc: &BmcSpec, password: &Secret) -> Result<BmcState, BmcError> {
    let systems = get(place, bmc, password, "/redfish/v1/Systems").await?;
    let strange = |reason: &str| BmcError::Strange { address: bmc.address, reason: reason.to_owned() };
    let path = systems.pointer("/Members/0/@odata.id").and_then(Value::as_str).ok_or_else(|| strange("no system"))?;
    let system = get(place, bmc, password, path).await?;
    let text = |name: &str| system.get(name).and_then(Value::as_str).map(str::trim).unwrap_or_default().to_owned();
    let power = match text("PowerState").as_str() {
        "On" => Power::On,
        "Off" => Power::Off,
        "" => return Err(strange("no PowerState")),
        other => Power::Other(other.to_owned()),
    };
    // Dell's service tag, which the host sees as its serial number, is the SKU.
    let serials = ["SKU", "SerialNumber", "UUID"].map(text).into_iter().filter(|s| !s.is_empty()).collect();
    Ok(BmcState { power, serials, model: text("Model") })
}

async fn get(place: &dyn Remote, bmc: &BmcSpec, password: &Secret, path: &str) -> Result<Value, BmcError> {
    let exec = Exec::argv(["curl", "-q", "-K", "-"]).stdin(curl_config(bmc, password, path)).deadline(REQUEST * 2);
    let output = run(place, exec.as_login(), bmc, "curl").await?;
    let text = output.text();
    let (body, code) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
    match code {
        "200" => serde_json::from_str(body)
            .map_err(|e| BmcError::Strange { address: bmc.address, reason: format!("{path} is no JSON: {e}") }),
        "401" | "403" => Err(BmcError::Login { address: bmc.address, user: bmc.user.clone() }),
        "" | "000" => Err(unreachable(place, bmc, &output)),
        other => Err(BmcError::Strange { address: bmc.address, reason: format!("HTTP {other} for {path}") }),
    }
}

/// curl's configuration, for its stdin. BMCs have certificates nobody signed, so theirs is not checked.
fn curl_config(bmc: &BmcSpec, password: &Secret, path: &str) -> String {
    let host = match bmc.address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    let port = bmc.port.map_or_else(String::new, |port| format!(":{port}"));
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "url = \"https://{host}{port}{}\"\nuser = \"{}:{}\"\ninsecure\nsilent\nshow-error\nlocation\n\
         connect-timeout = 4\nmax-time = {}\nnoproxy = \"*\"\nheader = \"Accept: application/json\"\n\
         write-out = \"\\n%{{http_code}}\"\n",
        quoted(path),
        quoted(&bmc.user),
        quoted(password.expose()),
        REQUEST.as_secs(),
    )
}

async fn ipmi(place: &dyn Remote, bmc: &BmcSpec, password: &Secret) -> Result<BmcState, BmcError> {
    // The strong suite first; older BMCs, iDRAC 7 among them, know the weaker one alone.
    let (suite, status) = match ipmitool(place, bmc, password, "17", POWER).await {
        Err(BmcError::Strange { .. }) => ("3", ipmitool(place, bmc, password, "3", POWER).await?),
        other => ("17", other?),
    };
    let power = match status.trim() {
        "Chassis Power is on" => Power::On,
        "Chassis Power is off" => Power::Off,
        other => Power::Other(other.to_owned()),
    };
    // Not every BMC has a FRU: then nobody can say whose it is.
    let fru = ipmitool(place, bmc, password, suite, "fru print 0").await.unwrap_or_default();
    let fields = fru.lines().filter_map(|l| l.split_once(':')).map(|(name, value)| (name.trim(), value.trim()));
    let (mut serials, mut model) = (Vec::new(), String::new());
    for (name, value) in fields.filter(|(_, value)| !value.is_empty()) {
        match name {
            "Product Serial" | "Board Serial" | "Chassis Serial" | "Product Asset Tag" => {
                serials.push(value.to_owned())
            }
            "Product Name" => value.clone_into(&mut model),
            _ => {}
        }
    }
    Ok(BmcState { power, serials, model })
}

async fn ipmitool(
    place: &dyn Remote,
    bmc: &BmcSpec,
    password: &Secret,
    suite: &str,
    what: &str,
) -> Result<String, BmcError> {
    let quoted = password.expose().replace('\'', r"'\''");
    // The password goes by environment, set by a script that comes on stdin.
    let script = format!(
        "export IPMI_PASSWORD='{quoted}'\ncommand -v ipmitool >/dev/null || exit 127\n\
         exec ipmitool -I lanplus -C \"$1\" -H \"$2\" -p \"$3\" -U \"$4\" -E -N 2 -R 2 {what}\n"
    );
    let (address, port) = (bmc.address.to_string(), bmc.port.unwrap_or(623).to_string());
    let exec = Exec::script(script, [suite, &address, &port, &bmc.user]).deadline(REQUEST * 2);
    let output = run(place, exec.as_login(), bmc, "ipmitool").await?;
    if output.ok() {
        return Ok(output.text().into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let has = |words: &[&str]| words.iter().any(|w| said.contains(w));
    if has(&["HMAC is invalid", "unauthorized name", "password invalid", "Password invalid"]) {
        Err(BmcError::Login { address: bmc.address, user: bmc.user.clone() })
    } else if has(&["cipher suite", "open session response"]) {
        Err(BmcError::Strange { address: bmc.address, reason: format!("cipher suite {suite} refused") })
    } else if has(&["Unable to establish", "timeout", "No route", "unreachable"]) {
        Err(unreachable(place, bmc, &output))
    } else {
        Err(BmcError::Strange { address: bmc.address, reason: output.tail() })
    }
}

async fn run(place: &dyn Remote, exec: Exec, bmc: &BmcSpec, tool: &'static str) -> Result<Output, BmcError> {
    match place.run(exec).await {
        Ok(output) if output.status == 127 => Err(BmcError::NoTool { place: place.name().to_owned(), tool }),
        Ok(output) => Ok(output),
        Err(error) => Err(BmcError::Unreachable {
            place: place.name().to_owned(),
            address: bmc.address,
            reason: match error {
                RemoteError::TimedOut { .. } => "it did not answer in time".to_owned(),
                other => other.to_string(),
            },
        }),
    }
}

fn unreachable(place: &dyn Remote, bmc: &BmcSpec, output: &Output) -> BmcError {
    let tail = output.tail();
    let reason: Vec<&str> = tail.lines().filter(|line| !line.starts_with("Loading ")).collect();
    BmcError::Unreachable { place: place.name().to_owned(), address: bmc.address, reason: reason.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::FakeRemote;

    fn spec(kind: &str) -> BmcSpec {
        let text =
            serde_json::json!({ "kind": kind, "address": "10.0.0.111", "user": "root", "password": { "env": "X" } });
        serde_json::from_value(text).unwrap()
    }

    fn answers(status: i32, stdout: &str, stderr: &str) -> Option<Result<Output, RemoteError>> {
        Some(Ok(Output { status, stdout: stdout.into(), stderr: stderr.into() }))
    }

    const SYSTEM: &str =
        r#"{"PowerState":"On","SKU":"7XK4M02","SerialNumber":"CN7016349B00QP","Model":"PowerEdge R720xd"}"#;

    #[tokio::test]
    async fn redfish_says_power_and_service_tag_and_hides_the_password() {
        let place = FakeRemote::new("h2")
            .on("v1/Systems\"", "{\"Members\":[{\"@odata.id\":\"/redfish/v1/Systems/System.Embedded.1\"}]}\n200")
            .on("System.Embedded.1", format!("{SYSTEM}\n200"));
        let state = look(&place, &spec("redfish"), &Secret::new("cal\"vin\\")).await.unwrap();
        assert_eq!(state.power, Power::On);
        assert_eq!(state.serials, ["7XK4M02", "CN7016349B00QP"]);
        for exec in place.asked() {
            assert!(!exec.argv.join(" ").contains("vin") && !format!("{exec:?}").contains("vin"));
            assert!(String::from_utf8(exec.stdin).unwrap().contains(r#"user = "root:cal\"vin\\""#));
        }
    }

    #[tokio::test]
    async fn each_way_a_redfish_bmc_fails_is_told_apart() {
        let at = |status, stdout: &'static str, stderr: &'static str| {
            let place = FakeRemote::new("h2").rule(move |_| answers(status, stdout, stderr));
            async move { look(&place, &spec("redfish"), &Secret::new("x")).await.unwrap_err() }
        };
        let error = at(0, "\n401", "").await;
        assert_eq!(error.to_string(), "10.0.0.111 refuses user root: wrong user name or password");
        let error = at(7, "\n000", "curl: (7) Failed to connect").await;
        assert!(error.is_about_the_place() && error.to_string().contains("Failed to connect"));
        assert!(matches!(at(127, "", "sh: curl: not found").await, BmcError::NoTool { .. }));
        assert!(matches!(at(0, "<html>\n200", "").await, BmcError::Strange { .. }));
        assert!(matches!(at(0, "\n503", "").await, BmcError::Strange { .. }));
    }

    #[tokio::test]
    async fn ipmi_falls_back_to_the_old_suite_and_reads_the_fru() {
        let place = FakeRemote::new("h2").rule(|exec| {
            let script = String::from_utf8_lossy(&exec.stdin).into_owned();
            match (exec.argv[3].as_str(), script.contains("fru print")) {
                ("17", _) => answers(1, "", "Error in open session response message : no matching cipher suite\n"),
                (_, true) => answers(0, " Product Name          : R720xd\n Product Serial        : 7XK4M02\n", ""),
                _ => answers(0, "Chassis Power is off\n", ""),
            }
        });
        let state = look(&place, &spec("ipmi"), &Secret::new("it's")).await.unwrap();
        let expected = BmcState { power: Power::Off, serials: vec!["7XK4M02".into()], model: "R720xd".into() };
        assert_eq!(state, expected);
        assert!(place.asked().iter().all(|exec| !exec.argv.join(" ").contains("it's")));
    }

    #[tokio::test]
    async fn a_wrong_ipmi_password_is_said_plainly() {
        let stderr = "Loading IANA PEN Registry...\n> RAKP 2 HMAC is invalid\nError: Unable to establish IPMI v2 / RMCP+ session\n";
        let place = FakeRemote::new("h2").rule(move |_| answers(1, "", stderr));
        let error = look(&place, &spec("ipmi"), &Secret::new("x")).await.unwrap_err();
        assert!(matches!(error, BmcError::Login { .. }));
    }
}
