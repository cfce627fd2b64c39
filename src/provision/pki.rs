//! The cluster's own certificate authority, and what it issues to hosts. Pure but for the randomness of keys.

use crate::cluster::Document;
use crate::error::{Failure, Kind, LocalExt, ResultExt};
use crate::inventory::HostSpec;
use jiff::ToSpan;
use jiff::civil::Date;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Years a host's certificate holds; it is renewed by the first run in its last [`RENEW_DAYS`].
const HOST_YEARS: i32 = 5;
/// Years the authority holds.
const CA_YEARS: i32 = 30;
/// Days before its end at which a certificate is renewed.
const RENEW_DAYS: i32 = 60;

/// The authority and what it issued, kept in the state pool alone: no ordinary host ever sees its key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Its name; part of its certificate.
    name: String,
    /// Its certificate.
    pub certificate: String,
    /// Its private key.
    key: String,
    /// The current certificate of each host.
    pub hosts: BTreeMap<String, Issued>,
}

impl Document for Authority {
    const SCHEMA: &'static str = "rackhand.ca/1";
}

/// The names alone: the key is a secret.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({}, {} hosts)", self.name, self.hosts.len())
    }
}

/// A host's certificate as it was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// Names and addresses it is for.
    pub names: Vec<String>,
    /// The certificate.
    pub certificate: String,
    /// Hash of the private key's file, which is on that host alone.
    pub key_sha256: String,
    /// Its last day.
    pub until: Date,
}

/// The hash by which files on hosts are compared.
pub(super) fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names and addresses under which other hosts reach this one.
pub(super) fn names(host: &HostSpec) -> Vec<String> {
    vec![host.name.clone(), host.storage_address.to_string(), host.address.to_string()]
}

impl Issued {
    /// Whether it is for this host as it is now, and not about to end.
    pub fn fits(&self, host: &HostSpec, today: Date) -> bool {
        self.names == names(host) && self.until > today.saturating_add(RENEW_DAYS.days())
    }
}

fn serial() -> SerialNumber {
    SerialNumber::from_slice(&uuid::Uuid::new_v4().as_bytes()[..])
}

fn period(params: &mut CertificateParams, today: Date, years: i32) -> Date {
    // Hosts whose clocks are not yet in step must not find it too young.
    let from = today.saturating_sub(2.days());
    let until = today.saturating_add(years.years());
    let at = |day: Date| date_time_ymd(i32::from(day.year()), day.month().unsigned_abs(), day.day().unsigned_abs());
    (params.not_before, params.not_after) = (at(from), at(until));
    until
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(serial());
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(cluster: &str, today: Date) -> Result<Self, Failure> {
        let name = format!("rackhand {cluster}");
        let key = KeyPair::generate().or_kind(Kind::Failed)?;
        let mut params = ca_params(&name);
        period(&mut params, today, CA_YEARS);
        let certificate = params.self_signed(&key).or_kind(Kind::Failed)?.pem();
        Ok(Authority { name, certificate, key: key.serialize_pem(), hosts: BTreeMap::new() })
    }

    /// Issues a certificate to a host and remembers it. Returns the private key, which is remembered nowhere.
    ///
    /// # Errors
    /// When the authority's key cannot be used.
    pub fn issue(&mut self, host: &HostSpec, today: Date) -> Result<String, Failure> {
        let broken = || "the cluster's certificate authority".to_owned();
        let ca_key = KeyPair::from_pem(&self.key).or_kind(Kind::Failed).while_doing(broken)?;
        let issuer = Issuer::new(ca_params(&self.name), ca_key);
        let key = KeyPair::generate().or_kind(Kind::Failed)?;
        let mut params = params(&host.name);
        params.subject_alt_names =
            CertificateParams::new(names(host)).or_kind(Kind::Failed).while_doing(broken)?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let until = period(&mut params, today, HOST_YEARS);
        let certificate = params.signed_by(&key, &issuer).or_kind(Kind::Failed).while_doing(broken)?.pem();
        let key = key.serialize_pem();
        let issued = Issued { names: names(host), certificate, key_sha256: sha256(&key), until };
        self.hosts.insert(host.name.clone(), issued);
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostSpec {
        serde_saphyr::from_str("{name: h1, address: 10.0.0.1, storage_address: 10.1.0.1}").unwrap()
    }

    #[test]
    fn what_is_issued_is_accepted_by_openssl_for_all_its_names() {
        let today = jiff::Zoned::now().date();
        let mut authority = Authority::new("lab", today).unwrap();
        let key = authority.issue(&host(), today).unwrap();
        let issued = &authority.hosts["h1"];
        assert!(issued.fits(&host(), today) && !issued.fits(&host(), issued.until));
        assert_eq!(issued.key_sha256, sha256(&key));
        assert!(!format!("{authority:?}").contains("PRIVATE"));
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (ca, certificate) = (put("ca.pem", &authority.certificate), put("host.pem", &issued.certificate));
        let output = std::process::Command::new("openssl")
            .args(["verify", "-purpose", "sslserver", "-verify_ip", "10.1.0.1", "-CAfile"])
            .args([&ca, &certificate])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
