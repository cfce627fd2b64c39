//! Values that are written as text: sizes, link speeds, address ranges.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// A link speed in Mbit/s, written `1G`, `10G`, `25G`, `40G`, `56G`, `100G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkSpeed(pub u64);

impl FromStr for LinkSpeed {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (digits, factor) = match s.strip_suffix('G') {
            Some(d) => (d, 1000),
            None => (s.strip_suffix('M').unwrap_or(""), 1),
        };
        match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)) {
            Some(n) if n > 0 => Ok(LinkSpeed(n)),
            _ => Err(format!("`{s}` is not a link speed; write for example 10G")),
        }
    }
}

impl fmt::Display for LinkSpeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}G", self.0 / 1000) } else { write!(f, "{}M", self.0) }
    }
}

/// A number of bytes, written `512M`, `4G`, `1T` (powers of 1024), or `2097664B`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Suffixes and the powers of two they stand for, largest first.
const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl Size {
    /// So many MiB.
    pub const fn mib(n: u64) -> Self {
        Size(n << 20)
    }

    /// So many GiB.
    pub const fn gib(n: u64) -> Self {
        Size(n << 30)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{s}` is not a size; write for example 512M or 4G");
        let body = s.strip_suffix("iB").unwrap_or(s);
        // Bytes are told by their unit too: a bare number is more often a forgotten `G`.
        let bytes = s.strip_suffix('B').filter(|digits| digits.ends_with(|c: char| c.is_ascii_digit())).map(|d| (d, 0));
        let unit = UNITS.iter().find_map(|(c, shift)| Some((body.strip_suffix(*c)?, *shift)));
        let (digits, shift) = bytes.or(unit).ok_or_else(wrong)?;
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let n: u64 = digits.parse().map_err(|_| wrong())?;
        n.checked_mul(1 << shift).map(Size).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in UNITS {
            if self.0 > 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        if self.0 == 0 { f.write_str("0K") } else { write!(f, "{}B", self.0) }
    }
}

/// A range of addresses, both ends included, written `10.0.0.10-10.0.0.99`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// First address.
    pub first: IpAddr,
    /// Last address.
    pub last: IpAddr,
}

impl AddressRange {
    /// Whether an address lies in the range.
    pub fn contains(&self, address: &IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(address)
    }

    /// Whether two ranges have an address in common.
    pub fn overlaps(&self, other: &AddressRange) -> bool {
        self.first.is_ipv4() == other.first.is_ipv4() && self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{s}` is not an address range; write for example 10.0.0.10-10.0.0.99");
        let (first, last) = s.split_once('-').ok_or_else(wrong)?;
        let range = AddressRange {
            first: first.trim().parse().map_err(|_| wrong())?,
            last: last.trim().parse().map_err(|_| wrong())?,
        };
        if range.first.is_ipv4() != range.last.is_ipv4() || range.first > range.last { Err(wrong()) } else { Ok(range) }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// How long something is waited for, written `900ms` or `3s`; between 300 ms and a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Patience(pub Duration);

impl FromStr for Patience {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{s}` is not a time between 300ms and 60s; write for example 900ms or 3s");
        let (digits, factor) = match s.strip_suffix("ms") {
            Some(digits) => (digits, 1),
            None => (s.strip_suffix('s').ok_or_else(wrong)?, 1000),
        };
        let plain = digits.chars().all(|c| c.is_ascii_digit());
        let millis = digits.parse::<u64>().ok().filter(|_| plain).and_then(|n| n.checked_mul(factor));
        let millis = millis.filter(|millis| (300..=60_000).contains(millis)).ok_or_else(wrong)?;
        Ok(Patience(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis.is_multiple_of(1000) { write!(f, "{}s", millis / 1000) } else { write!(f, "{millis}ms") }
    }
}

/// The key of a certificate, as curl pins it: `sha256//` and the SHA-256 of the public key in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPin([u8; 32]);

impl KeyPin {
    /// The pin of the key with this SHA-256.
    pub const fn new(sha256: [u8; 32]) -> Self {
        KeyPin(sha256)
    }
}

impl FromStr for KeyPin {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            let what = if s.len() >= 64 && s.contains(':') { "; this is one of the whole certificate" } else { "" };
            format!("`{s}` is not the fingerprint of a key: `sha256//` and 44 characters of base64{what}")
        };
        let bytes = BASE64_STANDARD.decode(s.strip_prefix("sha256//").ok_or_else(wrong)?).map_err(|_| wrong())?;
        bytes.try_into().map(KeyPin).map_err(|_| wrong())
    }
}

impl fmt::Display for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256//{}", BASE64_STANDARD.encode(self.0))
    }
}

/// Stands for a network in the schema: `10.0.0.0/24`.
pub(super) struct Cidr;

macro_rules! text_schema {
    ($name:ident, $format:literal, $pattern:literal, $description:literal) => {
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string", "format": $format, "pattern": $pattern, "description": $description
                })
            }
        }
    };
}
text_schema!(LinkSpeed, "link-speed", "^[0-9]+[MG]$", "A link speed: 1G, 10G, 25G, 40G, 56G, 100G.");
text_schema!(Size, "size", "^[0-9]+([KMGT](iB)?|B)$", "A size in powers of 1024: 512M, 4G, 1T; bytes: 2097664B.");
text_schema!(Patience, "patience", "^[0-9]+(ms|s)$", "A time between 300ms and 60s: 900ms, 3s.");
text_schema!(AddressRange, "address-range", "^[^ -]+ *- *[^ -]+$", "First and last address: 10.0.0.10-10.0.0.99.");
text_schema!(
    KeyPin,
    "key-pin",
    "^sha256//[A-Za-z0-9+/]{43}=$",
    "SHA-256 of a certificate's public key, as `curl --pinnedpubkey` takes it: sha256//BASE64."
);
text_schema!(Cidr, "cidr", "^[0-9a-fA-F.:]+/[0-9]+$", "A network: 10.0.0.0/24.");

macro_rules! serde_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(LinkSpeed, Size, AddressRange, KeyPin, Patience);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_speeds_and_ranges_read_back_as_written() {
        for text in ["512M", "4G", "1T", "64K", "0K", "2097664B", "1B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in
            ["", "4", "4X", "-1G", "+1G", "99999999999T", "4Ü", "B", "KB", "1KB", "4BiB", "18446744073709551616B"]
        {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!("100G".parse::<LinkSpeed>().unwrap(), LinkSpeed(100_000));
        for text in ["fast", "0G", "99999999999999999999G", "18446744073709551615G"] {
            assert!(text.parse::<LinkSpeed>().is_err(), "{text}");
        }
        for text in ["300ms", "900ms", "3s", "60s"] {
            assert_eq!(text.parse::<Patience>().unwrap().to_string(), text);
        }
        for text in ["", "3", "3m", "+3s", "299ms", "61s", "99999999999999999999s", "0.9s"] {
            assert!(text.parse::<Patience>().is_err(), "{text}");
        }
        let pin = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(pin.parse::<KeyPin>().unwrap().to_string(), pin);
        for text in ["", "sha256//", "sha256//47DEQpj8", "AB:CD", &pin[8..]] {
            assert!(text.parse::<KeyPin>().is_err(), "{text}");
        }
        assert!("10.0.0.9-10.0.0.3".parse::<AddressRange>().is_err());
        assert_eq!("10.0.0.3-10.0.0.9".parse::<AddressRange>().unwrap().to_string(), "10.0.0.3-10.0.0.9");
    }
    proptest! {
        #[test]
        fn every_size_reads_back_as_written(bytes in prop_oneof![any::<u64>(), 0..1u64 << 42, (0..u64::MAX >> 40).prop_map(|n| n << 40)]) {
            let text = Size(bytes).to_string();
            prop_assert_eq!(text.parse::<Size>(), Ok(Size(bytes)));
            let json = serde_json::to_string(&Size(bytes)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Size>(&json).unwrap(), Size(bytes));
        }

        #[test]
        fn every_speed_reads_back_as_written(mbits in 1u64..) {
            prop_assert_eq!(LinkSpeed(mbits).to_string().parse::<LinkSpeed>(), Ok(LinkSpeed(mbits)));
        }
    }
}
