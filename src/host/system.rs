//! Operating systems that provisioning knows.

/// A family of distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Debian and Ubuntu: apt.
    Debian,
    /// RHEL and what is built from it: dnf. Written from its documentation and not tried on a host.
    Redhat,
}

impl Family {
    /// The name templates see.
    pub fn name(self) -> &'static str {
        match self {
            Family::Debian => "debian",
            Family::Redhat => "redhat",
        }
    }
}

/// Distributions and versions that are supported.
const SUPPORTED: &[(&str, &str)] = &[("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04")];

/// The family of a distribution by the `ID` and `VERSION_ID` of its os-release.
///
/// # Errors
/// What is supported, where this one is not.
pub fn family(os: &str, version: &str) -> Result<Family, String> {
    if SUPPORTED.contains(&(os, version)) {
        return Ok(Family::Debian);
    }
    let major = version.split('.').next().unwrap_or_default();
    if ["rhel", "rocky", "almalinux", "centos"].contains(&os) && ["9", "10"].contains(&major) {
        return Ok(Family::Redhat);
    }
    let list: Vec<String> = SUPPORTED.iter().map(|(os, version)| format!("{os} {version}")).collect();
    Err(format!("{os} {version} is not supported (supported: {})", list.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_systems_are_refused_with_the_list() {
        assert!(family("debian", "11").unwrap_err().contains("debian 12"));
        assert!(family("arch", "").is_err());
        assert_eq!(family("almalinux", "9.3"), Ok(Family::Redhat));
    }
}
