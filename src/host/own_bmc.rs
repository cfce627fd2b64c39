//! A host's own BMC, as the host sees it from inside.

use crate::ssh::{Exec, Remote, RemoteError};
use std::net::IpAddr;
use std::time::Duration;

const SCRIPT: &str = include_str!("own_bmc.sh");
/// The slowest BMCs take seconds for an answer.
const DEADLINE: Duration = Duration::from_secs(20);

/// Where a host's own BMC is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnBmc {
    /// Its address.
    pub address: IpAddr,
    /// Whether it answered to Redfish; nothing where the host could not ask it.
    pub redfish: Option<bool>,
}

/// Looks for a host's own BMC; nothing where there is none, or no `ipmitool` on the host to ask it with.
///
/// # Errors
/// When the host cannot be asked.
pub async fn own_bmc(remote: &dyn Remote) -> Result<Option<OwnBmc>, RemoteError> {
    let exec = Exec::script(SCRIPT, Vec::<String>::new()).deadline(DEADLINE);
    Ok(parse(&remote.run(exec).await?.text()))
}

fn parse(text: &str) -> Option<OwnBmc> {
    let mut bmc = None;
    let mut redfish = None;
    for line in text.lines() {
        if let Some((key, value)) = line.split_once(':')
            && key.trim() == "IP Address"
        {
            bmc = value.trim().parse::<IpAddr>().ok();
        }
        // 000: nobody took the call, as where the BMC shares the host's own port.
        if let Some(code) = line.strip_prefix("redfish ").filter(|code| *code != "000") {
            redfish = Some(code == "200");
        }
    }
    let address = bmc.filter(|address| !address.is_unspecified())?;
    Some(OwnBmc { address, redfish })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::FakeRemote;

    const SETTINGS: &str = "Set in Progress         : Set Complete\n\
                            Auth Type Support       : MD5\n\
                            IP Address Source       : Static Address\n\
                            IP Address              : 10.20.1.11\n\
                            Subnet Mask             : 255.255.255.0\n\
                            MAC Address             : d4:ae:52:00:00:01\n\
                            Default Gateway IP      : 10.20.1.254\n";

    #[test]
    fn the_address_is_read_from_the_lan_settings() {
        let found = |more: &str| parse(&format!("{SETTINGS}{more}")).unwrap();
        assert_eq!(found("").address, IpAddr::from([10, 20, 1, 11]));
        for (answer, redfish) in
            [("", None), ("redfish 000\n", None), ("redfish 404\n", Some(false)), ("redfish 200\n", Some(true))]
        {
            assert_eq!(found(answer).redfish, redfish, "{answer}");
        }
        assert_eq!(parse(&SETTINGS.replace("10.20.1.11", "0.0.0.0")), None);
        assert_eq!(parse(""), None);
    }

    #[tokio::test]
    async fn a_host_without_a_bmc_has_none() {
        let remote = FakeRemote::new("h1").on("ipmitool lan print", "");
        assert_eq!(own_bmc(&remote).await.unwrap(), None);
        assert!(remote.asked()[0].root);
    }
}
