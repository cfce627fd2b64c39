//! IPMI over LAN, by ipmitool.

use super::state::{Access, BmcError, BmcState, Power, Pressed, identify, run, strange, unreachable, words};
use crate::quote::plain;
use crate::ssh::{Exec, Output, quote};

/// The question; without `-v` a refused password looks like a BMC that does not answer.
const POWER: &str = "-v chassis power status";
/// Longest serial number or model.
const FIELD: usize = 80;

/// How a session is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Opening {
    /// Cipher suite.
    suite: &'static str,
    /// Privilege asked for. ipmitool's own is ADMINISTRATOR, which a user made for switching the power does not have.
    level: &'static str,
}

/// The strong suite first; older BMCs, iDRAC 7 among them, know the weaker one alone.
const SUITES: [&str; 2] = ["17", "3"];
/// What `chassis power` needs, and what a user is usually given.
const LEVELS: [&str; 2] = ["ADMINISTRATOR", "OPERATOR"];

/// What a failed session says about its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// User or password.
    Login,
    /// The user may not have the privilege that was asked for.
    Privilege,
    /// No room for another session.
    Sessions,
    /// The cipher suite.
    Suite,
    /// No answer.
    Silence,
    /// Anything else.
    Other,
}

/// Sorts what ipmitool says. Its words for the RMCP+ status codes (IPMI 2.0, table 13-15) follow "open session response
/// message" or "RAKP n message"; what a code means does not depend on the message it came in.
fn cause(said: &str) -> Cause {
    let has = |words: &[&str]| words.iter().any(|w| said.contains(w));
    if has(&["insufficient resources"]) {
        Cause::Sessions
    } else if has(&["unauthorized role", "invalid role", "nsufficient privilege", "rivilege level exceeds limit"]) {
        Cause::Privilege
    } else if has(&["HMAC is invalid", "unauthorized name", "invalid name length", "assword invalid"])
        || has(&["invalid integrity check value"])
    {
        Cause::Login
    } else if has(&["cipher suite", "no matching", "invalid authentication algorithm", "invalid integrity algorithm"])
        || has(&["invalid confidentiality algorithm"])
    {
        Cause::Suite
    } else if has(&["Unable to establish", "timeout", "No route", "unreachable"]) {
        Cause::Silence
    } else {
        Cause::Other
    }
}

/// What the BMC says of the machine.
pub(super) async fn query_bmc(access: &Access<'_>) -> Result<BmcState, BmcError> {
    Ok(look(access).await?.1)
}

/// Asks for the power to be switched off, if the machine is the one with this service tag.
pub(super) async fn press(access: &Access<'_>, serial: &str) -> Result<Pressed, BmcError> {
    let (opening, state) = look(access).await?;
    identify(access.bmc, &state, serial)?;
    let output = ipmitool(access, opening, "chassis power off").await?;
    match output.ok() {
        true => Ok(Pressed::Accepted),
        // A machine that is off already, among others: what holds is what is read next.
        false if String::from_utf8_lossy(&output.stderr).contains("Set Chassis Power Control") => {
            Ok(Pressed::Refused(words(&output.tail())))
        }
        false => Err(strange(access.bmc, &output.tail())),
    }
}

/// How a session is opened, and what is said in it of the machine.
async fn look(access: &Access<'_>) -> Result<(Opening, BmcState), BmcError> {
    let (opening, status) = open(access).await?;
    let power = match status.lines().map(str::trim).find(|line| line.starts_with("Chassis Power is ")) {
        Some("Chassis Power is on") => Power::On,
        Some("Chassis Power is off") => Power::Off,
        other => Power::Other(plain(other.unwrap_or(&status), FIELD)),
    };
    // Not every BMC has a FRU: whose it is cannot be said then.
    let fru = match ipmitool(access, opening, "fru print 0").await {
        Ok(output) if output.ok() => output.text().into_owned(),
        _ => String::new(),
    };
    let fields = fru.lines().filter_map(|l| l.split_once(':'));
    let (mut serials, mut model) = (Vec::new(), String::new());
    for (name, value) in fields.map(|(name, value)| (name.trim(), plain(value, FIELD))).filter(|(_, v)| !v.is_empty()) {
        match name {
            "Product Serial" | "Board Serial" | "Chassis Serial" | "Product Asset Tag" => serials.push(value),
            "Product Name" => model = value,
            _ => {}
        }
    }
    Ok((opening, BmcState { power, serials, model }))
}

/// Opens a session as the BMC lets it; tells how, and the answer.
async fn open(access: &Access<'_>) -> Result<(Opening, String), BmcError> {
    let Access { place, bmc, .. } = *access;
    let (mut suites, mut levels) = (SUITES.into_iter(), LEVELS.into_iter());
    let mut opening = Opening { suite: suites.next().unwrap_or("17"), level: levels.next().unwrap_or("OPERATOR") };
    loop {
        let output = ipmitool(access, opening, POWER).await?;
        if output.ok() {
            return Ok((opening, output.text().into_owned()));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let (address, user) = (bmc.address, bmc.user.clone());
        match cause(&said) {
            Cause::Suite => match suites.next() {
                Some(suite) => opening = Opening { suite, ..opening },
                None => return Err(strange(bmc, &format!("it takes none of the cipher suites {}", SUITES.join(", ")))),
            },
            Cause::Privilege => match levels.next() {
                Some(level) => opening = Opening { level, ..opening },
                None => {
                    let words = format!("it may not log in as {}", opening.level);
                    return Err(BmcError::Privilege { address, user, words });
                }
            },
            Cause::Login => return Err(BmcError::Login { address, user, words: String::new() }),
            Cause::Sessions => {
                return Err(BmcError::Occupied { address, words: "all its IPMI sessions are taken".to_owned() });
            }
            Cause::Silence => return Err(unreachable(place, bmc, &output)),
            Cause::Other => return Err(strange(bmc, &output.tail())),
        }
    }
}

async fn ipmitool(access: &Access<'_>, opening: Opening, what: &str) -> Result<Output, BmcError> {
    let Access { place, bmc, password, patience } = *access;
    // The password goes by environment, set by a script that comes on stdin.
    let script = format!(
        "export IPMI_PASSWORD={}\nexport LC_ALL=C\ncommand -v ipmitool >/dev/null || exit 127\n\
         exec ipmitool -I lanplus -C \"$1\" -L \"$5\" -H \"$2\" -p \"$3\" -U \"$4\" -E -N 2 -R 2 {what}\n",
        quote(password.expose())
    );
    let (address, port) = (bmc.address.to_string(), bmc.port.unwrap_or(bmc.kind.port()).to_string());
    let args = [opening.suite, &address, &port, &bmc.user, opening.level];
    run(place, Exec::script(script, args).deadline(patience.command).as_login(), bmc, "ipmitool").await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::state::LOOK;
    use crate::inventory::BmcSpec;
    use crate::inventory::secret::Secret;
    use crate::ssh::{FakeRemote, RemoteError};

    async fn query(place: &FakeRemote, password: &str) -> Result<BmcState, BmcError> {
        let password = Secret::new(password);
        query_bmc(&Access { place, bmc: &spec(), password: &password, patience: LOOK }).await
    }

    fn spec() -> BmcSpec {
        let text =
            serde_json::json!({ "kind": "ipmi", "address": "10.0.0.111", "user": "root", "password": { "env": "X" } });
        serde_json::from_value(text).unwrap()
    }

    fn answers(status: i32, stdout: &str, stderr: &str) -> Option<Result<Output, RemoteError>> {
        Some(Ok(Output { status, stdout: stdout.into(), stderr: stderr.into() }))
    }

    /// What ipmitool 1.8.19 prints for a session that is refused, as its source and its strings have it.
    fn refused(line: &str) -> String {
        format!("Loading IANA PEN Registry...\n{line}\n\nError: Unable to establish IPMI v2 / RMCP+ session\n")
    }

    #[test]
    fn what_ipmitool_says_is_sorted_by_its_cause() {
        let table = [
            ("RAKP 2 message indicates an error : unauthorized role requested", Cause::Privilege),
            ("RAKP 2 message indicates an error : invalid role", Cause::Privilege),
            ("Set Session Privilege Level to ADMINISTRATOR failed: Insufficient privilege level", Cause::Privilege),
            ("\tRequested privilege level exceeds limit", Cause::Privilege),
            ("Error in open session response message : insufficient resources for session", Cause::Sessions),
            ("RAKP 2 message indicates an error : insufficient resources for role", Cause::Sessions),
            ("Error in open session response message : no matching cipher suite", Cause::Suite),
            ("Error in open session response message : no matching authentication payload", Cause::Suite),
            ("Error in open session response message : invalid authentication algorithm", Cause::Suite),
            ("Error in open session response message : invalid integrity algorithm", Cause::Suite),
            ("RAKP 2 message indicates an error : unauthorized name", Cause::Login),
            ("> RAKP 2 HMAC is invalid", Cause::Login),
            ("> RAKP 4 message has invalid integrity check value", Cause::Login),
            ("RAKP 4 message indicates an error : invalid integrity check value", Cause::Login),
            ("Get Auth Capabilities error", Cause::Silence),
            ("", Cause::Silence),
        ];
        for (line, expected) in table {
            assert_eq!(cause(&refused(line)), expected, "{line}");
        }
        assert_eq!(cause("Invalid completion code"), Cause::Other);
    }

    #[tokio::test]
    async fn the_old_suite_and_the_lower_privilege_are_tried_and_the_fru_is_read() {
        let place = FakeRemote::new("h2").rule(|exec| {
            let script = String::from_utf8_lossy(&exec.stdin).into_owned();
            match (exec.argv[3].as_str(), exec.argv[7].as_str(), script.contains("fru print")) {
                ("17", ..) => {
                    answers(1, "", &refused("Error in open session response message : no matching cipher suite"))
                }
                (_, "ADMINISTRATOR", _) => {
                    answers(1, "", &refused("RAKP 2 message indicates an error : unauthorized role requested"))
                }
                (.., true) => answers(0, " Product Name          : R720xd\n Product Serial        : 7XK4M02\n", ""),
                _ => answers(0, "Chassis Power is off\n", ""),
            }
        });
        let state = query(&place, "it's").await.unwrap();
        let expected = BmcState { power: Power::Off, serials: vec!["7XK4M02".into()], model: "R720xd".into() };
        assert_eq!(state, expected);
        assert!(place.asked().iter().all(|exec| !exec.argv.join(" ").contains("it's")));
        assert_eq!(place.asked().len(), 4, "the FRU is asked for as the session was opened");
    }

    #[tokio::test]
    async fn the_order_is_given_to_the_machine_with_the_tag_alone() {
        let bmc = |status: i32, stderr: &'static str| {
            FakeRemote::new("h2").rule(move |exec| {
                let script = String::from_utf8_lossy(&exec.stdin).into_owned();
                match (script.contains("fru print"), script.contains("chassis power off")) {
                    (true, _) => answers(0, " Product Serial        : 7XK4M02\n", ""),
                    (_, true) => answers(status, "Chassis Power Control: Down/Off\n", stderr),
                    _ => answers(0, "Chassis Power is on\n", ""),
                }
            })
        };
        let order = async |place: &FakeRemote, serial: &str| {
            let password = Secret::new("x");
            press(&Access { place, bmc: &spec(), password: &password, patience: LOOK }, serial).await
        };
        assert_eq!(order(&bmc(0, ""), "7XK4M02").await.unwrap(), Pressed::Accepted);
        let said = "Set Chassis Power Control to Down/Off failed: Command not supported in present state";
        assert_eq!(order(&bmc(1, said), "7XK4M02").await.unwrap(), Pressed::Refused(said.to_owned()));
        let place = bmc(0, "");
        assert!(matches!(order(&place, "7XK4M03").await, Err(BmcError::Neighbour { .. })));
        assert_eq!(place.asked().len(), 2, "no order was given");
    }

    #[tokio::test]
    async fn each_refusal_is_told_for_what_it_is() {
        let table = [
            ("> RAKP 2 HMAC is invalid", "10.0.0.111 refuses user root: wrong user name or password"),
            (
                "RAKP 2 message indicates an error : unauthorized role requested",
                "10.0.0.111 refuses user root: the user lacks the privilege (it may not log in as OPERATOR)",
            ),
            (
                "Error in open session response message : insufficient resources for session",
                "10.0.0.111 takes no request at the moment: all its IPMI sessions are taken",
            ),
            (
                "Error in open session response message : no matching cipher suite",
                "10.0.0.111 answered strangely: it takes none of the cipher suites 17, 3",
            ),
            ("", "no answer from 10.0.0.111, asked from h2: Error: Unable to establish IPMI v2 / RMCP+ session"),
        ];
        for (line, expected) in table {
            let place = FakeRemote::new("h2").rule(move |_| answers(1, "", &refused(line)));
            let error = query(&place, "x").await.unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
