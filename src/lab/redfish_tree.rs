//! What the Redfish service of a BMC answers, without any I/O.

use super::control::{Power, Request as Ask};
use super::names::{HostPlan, machine_uuid};
use super::rootfs::{MODEL, VENDOR};
use serde_json::{Value, json};

const ROOT: &str = "/redfish/v1";
const SYSTEM: &str = "/redfish/v1/Systems/System.Embedded.1";
const MANAGER: &str = "/redfish/v1/Managers/iDRAC.Embedded.1";
const RESET: &str = "/redfish/v1/Systems/System.Embedded.1/Actions/ComputerSystem.Reset";
/// What a reset can be asked for, as this BMC lists it.
const RESET_TYPES: [&str; 7] =
    ["On", "ForceOff", "ForceRestart", "GracefulRestart", "GracefulShutdown", "PushPowerButton", "PowerCycle"];

/// What the BMC knows of its host.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    name: String,
    serial: String,
    uuid: String,
}

impl Machine {
    pub(super) fn of(host: HostPlan) -> Self {
        Machine { name: host.name(), serial: host.serial(), uuid: machine_uuid(host).to_string() }
    }
}

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Other,
}

/// What it is answered, and what happens then.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Option<Value>,
    pub(super) ask: Option<Ask>,
}

impl Answer {
    fn ok(body: Value) -> Self {
        Answer { status: 200, body: Some(body), ask: None }
    }

    /// An error in Redfish's own form.
    pub(super) fn error(status: u16, message: &str) -> Self {
        let body = json!({"error": {
            "code": "Base.1.12.GeneralError",
            "message": message,
            "@Message.ExtendedInfo": [{"Message": message, "MessageId": "Base.1.12.GeneralError", "Severity": "Warning"}],
        }});
        Answer { status, body: Some(body), ask: None }
    }
}

/// Answers one request; `login` says whether user and password were right.
pub(super) fn answer(machine: &Machine, power: Power, login: bool, method: Method, path: &str, body: &[u8]) -> Answer {
    let path = path.strip_suffix('/').unwrap_or(path);
    // The standard opens these two to everybody.
    match (method, path) {
        (Method::Get, "/redfish") => return Answer::ok(json!({"v1": "/redfish/v1/"})),
        (Method::Get, ROOT) => return Answer::ok(service_root(machine)),
        _ if !login => return Answer::error(401, "no valid user name and password were given"),
        _ => {}
    }
    match (method, path) {
        (Method::Post, RESET) => reset(power, body),
        (Method::Get, "/redfish/v1/Systems") => Answer::ok(collection("ComputerSystemCollection", path, SYSTEM)),
        (Method::Get, "/redfish/v1/Managers") => Answer::ok(collection("ManagerCollection", path, MANAGER)),
        (Method::Get, SYSTEM) => Answer::ok(system(machine, power)),
        (Method::Get, MANAGER) => Answer::ok(manager()),
        (_, ROOT | SYSTEM | MANAGER | RESET | "/redfish/v1/Systems" | "/redfish/v1/Managers") => {
            Answer::error(405, "the resource does not take this method")
        }
        _ => Answer::error(404, "there is no such resource"),
    }
}

fn service_root(machine: &Machine) -> Value {
    json!({
        "@odata.id": "/redfish/v1/",
        "@odata.type": "#ServiceRoot.v1_11_0.ServiceRoot",
        "Id": "RootService",
        "Name": "Root Service",
        "RedfishVersion": "1.13.1",
        "UUID": machine.uuid,
        "Vendor": VENDOR,
        "Systems": {"@odata.id": "/redfish/v1/Systems"},
        "Managers": {"@odata.id": "/redfish/v1/Managers"},
    })
}

fn collection(kind: &str, path: &str, member: &str) -> Value {
    json!({
        "@odata.id": path,
        "@odata.type": format!("#{kind}.{kind}"),
        "Name": kind,
        "Members": [{"@odata.id": member}],
        "Members@odata.count": 1,
    })
}

fn system(machine: &Machine, power: Power) -> Value {
    let on = power == Power::On;
    json!({
        "@odata.id": SYSTEM,
        "@odata.type": "#ComputerSystem.v1_16_0.ComputerSystem",
        "Id": "System.Embedded.1",
        "Name": "System",
        "SystemType": "Physical",
        "HostName": machine.name,
        "Manufacturer": VENDOR,
        "Model": MODEL,
        "SerialNumber": machine.serial,
        "SKU": machine.serial,
        "UUID": machine.uuid,
        "PowerState": if on { "On" } else { "Off" },
        "Status": {"State": if on { "Enabled" } else { "StandbyOffline" }, "Health": "OK"},
        "Links": {"ManagedBy": [{"@odata.id": MANAGER}]},
        "Actions": {"#ComputerSystem.Reset": {"target": RESET, "ResetType@Redfish.AllowableValues": RESET_TYPES}},
    })
}

fn manager() -> Value {
    json!({
        "@odata.id": MANAGER,
        "@odata.type": "#Manager.v1_13_0.Manager",
        "Id": "iDRAC.Embedded.1",
        "Name": "Manager",
        "ManagerType": "BMC",
        "Model": MODEL,
        "FirmwareVersion": env!("CARGO_PKG_VERSION"),
        "PowerState": "On",
        "Status": {"State": "Enabled", "Health": "OK"},
        "Links": {"ManagerForServers": [{"@odata.id": SYSTEM}]},
    })
}

fn reset(power: Power, body: &[u8]) -> Answer {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return Answer::error(400, "the request body is not valid JSON");
    };
    let on = power == Power::On;
    let ask = match (body.get("ResetType").and_then(Value::as_str), on) {
        (Some("On"), false) | (Some("PushPowerButton"), false) => Ask::On,
        (Some("ForceOff"), true) => Ask::Off,
        (Some("ForceRestart"), true) => Ask::Reset,
        (Some("GracefulRestart"), true) => Ask::SoftReset,
        (Some("PowerCycle"), true) => Ask::Cycle,
        (Some("GracefulShutdown" | "PushPowerButton"), true) => Ask::Soft,
        (Some(kind), _) if RESET_TYPES.contains(&kind) => {
            let state = if on { "ON" } else { "OFF" };
            return Answer::error(409, &format!("the command is refused: host power is already {state}"));
        }
        (Some(kind), _) => return Answer::error(400, &format!("`{kind}` is not a ResetType of this system")),
        (None, _) => return Answer::error(400, "ResetType is missing"),
    };
    Answer { status: 204, body: None, ask: Some(ask) }
}

#[cfg(test)]
mod tests {
    use super::super::names::Plan;
    use super::*;

    fn ask(power: Power, login: bool, method: Method, path: &str, body: &str) -> Answer {
        answer(&Machine::of(Plan::new(1).host(2)), power, login, method, path, body.as_bytes())
    }

    #[test]
    fn only_the_root_is_open_to_strangers() {
        assert_eq!(ask(Power::On, false, Method::Get, "/redfish/v1/", "").status, 200);
        for path in [SYSTEM, "/redfish/v1/Systems", RESET, "/redfish/v1/nothing"] {
            assert_eq!(ask(Power::On, false, Method::Get, path, "").status, 401, "{path}");
        }
    }

    #[test]
    fn every_link_leads_somewhere() {
        let mut todo = vec!["/redfish".to_owned(), "/redfish/v1/".to_owned()];
        let mut seen = std::collections::BTreeSet::new();
        while let Some(path) = todo.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            let answer = ask(Power::On, true, Method::Get, &path, "");
            assert_eq!(answer.status, 200, "{path}");
            collect_links(&answer.body.unwrap(), &mut todo);
        }
        assert!(seen.contains(SYSTEM) && seen.contains(MANAGER));
    }

    fn collect_links(value: &Value, links: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                links.extend(fields.get("@odata.id").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|v| collect_links(v, links));
            }
            Value::Array(items) => items.iter().for_each(|v| collect_links(v, links)),
            _ => {}
        }
    }

    #[test]
    fn the_system_tells_its_serial_and_power() {
        let body = ask(Power::Off, true, Method::Get, SYSTEM, "").body.unwrap();
        assert_eq!(body["SerialNumber"], "RH00102");
        assert_eq!(body["PowerState"], "Off");
    }

    #[test]
    fn a_reset_is_accepted_refused_or_wrong() {
        for (power, body, status, expected) in [
            (Power::On, r#"{"ResetType":"ForceOff"}"#, 204, Some(Ask::Off)),
            (Power::Off, r#"{"ResetType":"ForceOff"}"#, 409, None),
            (Power::Off, r#"{"ResetType":"On"}"#, 204, Some(Ask::On)),
            (Power::On, r#"{"ResetType":"On"}"#, 409, None),
            (Power::On, r#"{"ResetType":"ForceRestart"}"#, 204, Some(Ask::Reset)),
            (Power::Off, r#"{"ResetType":"ForceRestart"}"#, 409, None),
            (Power::On, r#"{"ResetType":"GracefulShutdown"}"#, 204, Some(Ask::Soft)),
            (Power::On, r#"{"ResetType":"GracefulRestart"}"#, 204, Some(Ask::SoftReset)),
            (Power::Off, r#"{"ResetType":"GracefulRestart"}"#, 409, None),
            (Power::Off, r#"{"ResetType":"PushPowerButton"}"#, 204, Some(Ask::On)),
            (Power::On, r#"{"ResetType":"Nmi"}"#, 400, None),
            (Power::On, "{}", 400, None),
            (Power::On, "no json", 400, None),
        ] {
            let answer = ask(power, true, Method::Post, RESET, body);
            assert_eq!((answer.status, answer.ask), (status, expected), "{power:?} {body}");
        }
        assert_eq!(ask(Power::On, true, Method::Get, RESET, "").status, 405);
    }
}
