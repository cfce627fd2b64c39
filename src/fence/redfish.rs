//! Redfish over HTTPS, by curl.

use super::state::{Access, BmcError, BmcState, Power, Pressed, identify, run, strange, unreachable, words};
use crate::inventory::BmcSpec;
use crate::quote::{CurlConfig, Unquotable, plain, url_host};
use crate::ssh::Exec;
use serde_json::Value;

/// What every Redfish service has at its top.
const SYSTEMS: &str = "/redfish/v1/Systems";
/// Systems of a service that are looked at; one that also lists its hypervisor has two.
const MEMBERS: usize = 4;
/// Redirections followed, all of them within the same service.
const REDIRECTIONS: usize = 2;
/// Bytes of an answer that are read: a system's description takes a few tens of KiB.
const ANSWER: usize = 4 << 20;
/// Longest path; real ones are below a hundred characters.
const PATH: usize = 512;
/// Longest serial number or model.
const FIELD: usize = 80;
/// The order to switch the power off at once.
const FORCE_OFF: &str = r#"{"ResetType":"ForceOff"}"#;

/// What the service says of the machine.
pub(super) async fn query_bmc(access: &Access<'_>) -> Result<BmcState, BmcError> {
    let (_, system) = system(access).await?;
    state(access.bmc, &system)
}

/// Asks for the power to be switched off, if the machine is the one with this service tag.
pub(super) async fn press(access: &Access<'_>, serial: &str) -> Result<Pressed, BmcError> {
    let (path, system) = system(access).await?;
    identify(access.bmc, &state(access.bmc, &system)?, serial)?;
    let told = system.pointer("/Actions/#ComputerSystem.Reset/target").and_then(Value::as_str);
    let target = told.map_or_else(|| format!("{path}/Actions/ComputerSystem.Reset"), str::to_owned);
    if !is_fine(&target) {
        return Err(strange(
            access.bmc,
            &format!("it names a path that is not one of Redfish: {}", plain(&target, 80)),
        ));
    }
    let (body, code, _) = request(access, &target, Some(FORCE_OFF)).await?;
    match code.as_str() {
        "200" | "202" | "204" => Ok(Pressed::Accepted),
        // What some say of a machine that is off already, others of one that cannot be switched at the moment.
        "400" | "409" => Ok(Pressed::Refused(match message(&body) {
            words if words.is_empty() => format!("HTTP {code}"),
            words => words,
        })),
        code => Err(refusal(access.bmc, &target, code, &body)),
    }
}

/// The path and the description of the machine.
async fn system(access: &Access<'_>) -> Result<(String, Value), BmcError> {
    let systems = get(access, SYSTEMS).await?;
    let members = systems.get("Members").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let paths: Vec<&str> = members.iter().filter_map(|m| m.get("@odata.id")?.as_str()).take(MEMBERS).collect();
    let mut found = None;
    for path in &paths {
        let system = get(access, path).await?;
        // Beside the machine there may be its operating system or a partition of it, without a power switch.
        let kind = text(&system, "SystemType");
        if (kind.is_empty() || kind == "Physical") && !text(&system, "PowerState").is_empty() {
            return Ok(((*path).to_owned(), system));
        }
        found.get_or_insert(((*path).to_owned(), system));
    }
    found.ok_or_else(|| strange(access.bmc, "it has no system"))
}

fn text(system: &Value, name: &str) -> String {
    plain(system.get(name).and_then(Value::as_str).unwrap_or_default(), FIELD)
}

fn state(bmc: &BmcSpec, system: &Value) -> Result<BmcState, BmcError> {
    let power = match text(system, "PowerState").as_str() {
        "On" => Power::On,
        "Off" => Power::Off,
        "" => return Err(strange(bmc, "no PowerState")),
        other => Power::Other(other.to_owned()),
    };
    // Dell's service tag, which the host sees as its serial number, is the SKU.
    let serials = ["SKU", "SerialNumber", "UUID"].map(|name| text(system, name));
    Ok(BmcState {
        power,
        serials: serials.into_iter().filter(|s| !s.is_empty()).collect(),
        model: text(system, "Model"),
    })
}

/// Whether a path may be asked for: it is one of the service, of visible ASCII that no text it goes into takes for more
/// than a letter.
fn is_fine(path: &str) -> bool {
    let fine = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\' | b'`' | b'<' | b'>');
    path.starts_with("/redfish/") && path.len() <= PATH && path.bytes().all(fine) && !path.split('/').any(|s| s == "..")
}

/// The path of a redirection, if it stays with this service.
fn redirected(bmc: &BmcSpec, url: &str) -> Option<String> {
    // curl puts user and password into it.
    let (host, path) = url.strip_prefix("https://")?.split_once('/')?;
    let url = format!("https://{}/{path}", host.rsplit('@').next().unwrap_or_default());
    let rest =
        url.strip_prefix(&base(bmc)).or_else(|| url.strip_prefix(&format!("https://{}", url_host(bmc.address))))?;
    is_fine(rest).then(|| rest.to_owned())
}

fn base(bmc: &BmcSpec) -> String {
    let port = bmc.port.map_or_else(String::new, |port| format!(":{port}"));
    format!("https://{}{port}", url_host(bmc.address))
}

async fn get(access: &Access<'_>, path: &str) -> Result<Value, BmcError> {
    let bmc = access.bmc;
    let mut path = path.to_owned();
    for _ in 0..=REDIRECTIONS {
        if !is_fine(&path) {
            return Err(strange(bmc, &format!("it names a path that is not one of Redfish: {}", plain(&path, 80))));
        }
        let (body, code, onward) = request(access, &path, None).await?;
        match code.as_str() {
            "200" => {
                return serde_json::from_str(&body).map_err(|e| strange(bmc, &format!("{path} is not JSON: {e}")));
            }
            "301" | "302" | "307" | "308" => {
                let Some(next) = redirected(bmc, &onward) else {
                    return Err(strange(bmc, &format!("{path} redirects to somewhere outside of this service")));
                };
                path = next;
            }
            code => return Err(refusal(bmc, &path, code, &body)),
        }
    }
    Err(strange(bmc, &format!("{SYSTEMS} redirects again and again")))
}

/// One request, with what is posted: the body, the status, and where a redirection leads.
async fn request(access: &Access<'_>, path: &str, posted: Option<&str>) -> Result<(String, String, String), BmcError> {
    let Access { place, bmc, patience, .. } = *access;
    let Ok(config) = curl_config(access, path, posted) else {
        return Err(BmcError::Login {
            address: bmc.address,
            user: plain(&bmc.user, 80),
            words: "bmc.user or the password holds a control character".to_owned(),
        });
    };
    // The status stands at the end: an answer that was cut short has none.
    let script = "command -v curl >/dev/null || exit 127; curl -q --config - | head -c \"$1\"; exit 0";
    let exec =
        Exec::argv(["sh", "-c", script, "sh", &ANSWER.to_string()]).stdin(config.text()).deadline(patience.command);
    let output = run(place, exec.as_login(), bmc, "curl").await?;
    let text = output.text();
    let (body, end) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
    let (code, onward) = end.split_once(' ').unwrap_or((end, ""));
    let is_status = code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit());
    if !is_status || code == "000" {
        let key = String::from_utf8_lossy(&output.stderr).contains("public key does not match");
        return Err(match (key, output.stdout.len() >= ANSWER) {
            (true, _) => BmcError::Certificate { place: place.name().to_owned(), address: bmc.address },
            (_, true) => strange(bmc, &format!("{path} has more than {} MiB", ANSWER >> 20)),
            _ => unreachable(place, bmc, &output),
        });
    }
    Ok((body.to_owned(), code.to_owned(), onward.to_owned()))
}

/// curl's configuration. BMCs come with a certificate that no authority signed: its key is checked where one is pinned.
fn curl_config(access: &Access<'_>, path: &str, posted: Option<&str>) -> Result<CurlConfig, Unquotable> {
    let Access { bmc, password, patience, .. } = *access;
    let connect = patience.request.as_secs().clamp(1, 4);
    let mut config = CurlConfig::new()
        .set("url", &format!("{}{path}", base(bmc)))?
        .set("user", &format!("{}:{}", bmc.user, password.expose()))?
        .set("proto", "=https")?
        .flag("insecure")
        .flag("globoff")
        .flag("silent")
        .flag("show-error")
        .set("connect-timeout", &connect.to_string())?
        .set("max-time", &patience.request.as_secs().to_string())?
        .set("noproxy", "*")?
        .set("header", "Accept: application/json")?;
    if let Some(key) = &bmc.fingerprint {
        config = config.set("pinnedpubkey", &key.to_string())?;
    }
    if let Some(body) = posted {
        config = config.set("header", "Content-Type: application/json")?.set("data-raw", body)?;
    }
    Ok(config.with_status())
}

/// What a status other than success means.
fn refusal(bmc: &BmcSpec, path: &str, code: &str, body: &str) -> BmcError {
    let words = message(body);
    let (address, user) = (bmc.address, bmc.user.clone());
    match code {
        "401" => BmcError::Login { address, user, words },
        "403" => BmcError::Privilege { address, user, words },
        "429" | "503" => {
            let words = if words.is_empty() { format!("HTTP {code}") } else { words };
            BmcError::Occupied { address, words }
        }
        _ if words.is_empty() => strange(bmc, &format!("HTTP {code} for {path}")),
        _ => strange(bmc, &format!("HTTP {code} for {path}: {words}")),
    }
}

/// The service's own words in an error (DSP0266, "Error responses").
fn message(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |at: &str| body.pointer(at).and_then(Value::as_str);
    words(text("/error/@Message.ExtendedInfo/0/Message").or_else(|| text("/error/message")).unwrap_or_default())
}

#[cfg(test)]
mod tests;
