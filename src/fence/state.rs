//! What a BMC answers, and how it can fail to.

use crate::inventory::BmcSpec;
use crate::inventory::secret::Secret;
use crate::quote::plain;
use crate::ssh::{Exec, Output, Remote, RemoteError};
use serde::Serialize;
use std::net::IpAddr;
use std::time::Duration;

/// How long a BMC may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For one request.
    pub(super) request: Duration,
    /// For the command that makes it, which tells of a request that took too long.
    pub(super) command: Duration,
}

/// A BMC is slow, but not slower than this.
pub(super) const LOOK: Patience = Patience { request: Duration::from_secs(10), command: Duration::from_secs(20) };
/// While guests wait for it, a request that takes long is rather made anew.
pub(super) const FENCE: Patience = Patience { request: Duration::from_secs(4), command: Duration::from_secs(5) };
/// Characters of a BMC's own words in a message.
const WORDS: usize = 200;

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

/// A BMC, and the way to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access<'a> {
    /// Where it is asked from.
    pub(super) place: &'a dyn Remote,
    /// The BMC.
    pub(super) bmc: &'a BmcSpec,
    /// Its password.
    pub(super) password: &'a Secret,
    /// How long it may take.
    pub(super) patience: Patience,
}

/// What a BMC said to the order to switch off. It says nothing of the power: that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pressed {
    /// It took it.
    Accepted,
    /// It did not, in its own words: the machine may be off already.
    Refused(String),
}

impl BmcState {
    /// Whether the machine is the one with this service tag.
    pub fn is_of(&self, serial: &str) -> bool {
        is_service_tag(serial) && self.serials.iter().any(|theirs| theirs.eq_ignore_ascii_case(serial))
    }
}

/// What firmware says where nobody gave the machine a serial number.
const NO_TAGS: [&str; 8] = [
    "to be filled by o.e.m.",
    "default string",
    "system serial number",
    "not specified",
    "none",
    "n/a",
    "0123456789",
    "unknown",
];

/// Whether a serial number tells one machine from all others.
pub(super) fn is_service_tag(serial: &str) -> bool {
    let serial = serial.trim().to_lowercase();
    serial.len() >= 4 && !NO_TAGS.contains(&serial.as_str()) && serial.chars().any(|c| !matches!(c, '0' | ' ' | '.'))
}

/// Refuses a BMC that is not of the machine with this service tag.
pub(super) fn identify(bmc: &BmcSpec, state: &BmcState, serial: &str) -> Result<(), BmcError> {
    if state.is_of(serial) {
        return Ok(());
    }
    Err(BmcError::Neighbour { address: bmc.address, serial: serial.to_owned(), found: state.serials.join("/") })
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
    #[error("{address} refuses user {user}: wrong user name or password{}", said(.words))]
    Login {
        /// The BMC.
        address: IpAddr,
        /// The user.
        user: String,
        /// What the BMC said.
        words: String,
    },
    /// The user is known and may not do it.
    #[error("{address} refuses user {user}: the user lacks the privilege{}", said(.words))]
    Privilege {
        /// The BMC.
        address: IpAddr,
        /// The user.
        user: String,
        /// What the BMC said.
        words: String,
    },
    /// It answers, and has no room for another session or is not ready.
    #[error("{address} takes no request at the moment: {words}")]
    Occupied {
        /// The BMC.
        address: IpAddr,
        /// What the BMC said.
        words: String,
    },
    /// Its certificate has another key than the pinned one.
    #[error("{address} has a certificate with another key than bmc.fingerprint says, asked from {place}")]
    Certificate {
        /// Where it was asked from.
        place: String,
        /// The BMC.
        address: IpAddr,
    },
    /// It is the BMC of another machine, or of one that cannot be told from others.
    #[error("{address} is not the BMC of the machine {serial}: {}", theirs(.found))]
    Neighbour {
        /// The BMC.
        address: IpAddr,
        /// The service tag of the machine that is meant.
        serial: String,
        /// The serial numbers that it has.
        found: String,
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

fn said(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" ({words})") }
}

fn theirs(found: &str) -> String {
    if found.is_empty() { "it has no serial number".to_owned() } else { format!("its machine is {found}") }
}

impl BmcError {
    /// Whether it may go better from another place.
    pub fn is_about_the_place(&self) -> bool {
        matches!(self, Self::NoTool { .. } | Self::Unreachable { .. })
    }

    /// What helps against it, for a message.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoTool { .. } => "`rackhand provision` installs what is missing",
            Self::Unreachable { .. } => "check its cable, address and bmc.kind",
            Self::Login { .. } => "correct bmc.user or what bmc.password points to",
            Self::Privilege { .. } => "give the user the privilege OPERATOR on the BMC; switching the power needs it",
            Self::Occupied { .. } => {
                "close sessions on the BMC, or wait until it ends idle ones; if it stays so, reset it"
            }
            Self::Certificate { .. } => {
                "find out whether the BMC's certificate was replaced before correcting bmc.fingerprint: another machine \
                 may answer at its address"
            }
            Self::Neighbour { .. } => "correct bmc.address: it would switch off another machine",
            Self::Strange { .. } => "check bmc.address, bmc.port and bmc.kind, and the BMC's firmware",
        }
    }

    /// Whether it stays so, however often it is asked: asking on would only lock the account.
    pub fn is_final(&self) -> bool {
        self.is_about_the_login() || matches!(self, Self::Certificate { .. } | Self::Neighbour { .. })
    }

    /// Whether it is about user, password or privileges.
    pub fn is_about_the_login(&self) -> bool {
        matches!(self, Self::Login { .. } | Self::Privilege { .. })
    }
}

/// A BMC's own words, fit for a message.
pub(super) fn words(text: &str) -> String {
    plain(text, WORDS)
}

/// Something strange that it answered.
pub(super) fn strange(bmc: &BmcSpec, reason: &str) -> BmcError {
    BmcError::Strange { address: bmc.address, reason: words(reason) }
}

/// No answer, with what the program said.
pub(super) fn unreachable(place: &dyn Remote, bmc: &BmcSpec, output: &Output) -> BmcError {
    let tail = output.tail();
    let reason: Vec<&str> = tail.lines().filter(|line| !line.starts_with("Loading ")).collect();
    BmcError::Unreachable { place: place.name().to_owned(), address: bmc.address, reason: words(&reason.join("; ")) }
}

/// Runs a program that asks the BMC.
pub(super) async fn run(place: &dyn Remote, exec: Exec, bmc: &BmcSpec, tool: &'static str) -> Result<Output, BmcError> {
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
