//! The form of single values, with what to write instead; and words that are nearly right.

use super::{AddressRange, LinkSpeed, Patience, Size};
use ipnet::IpNet;
use std::net::IpAddr;
use uuid::Uuid;

/// What is wrong, and what to write instead.
type Wrong = (String, String);

/// Checks a value against a format of the schema.
pub(super) fn check(format: &str, text: &str) -> Result<(), Wrong> {
    match format {
        "ip" => address(text),
        "cidr" => cidr(text),
        "size" => size(text),
        "link-speed" => speed(text),
        "address-range" => range(text),
        "uuid" => uuid(text),
        "patience" => patience(text),
        _ => Ok(()),
    }
}

fn wrong<T>(text: &str, what: &str, fix: impl Into<String>) -> Result<T, Wrong> {
    // "UUID" is spoken with a consonant.
    let article = if what.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O']) { "an" } else { "a" };
    Err((format!("`{}` is not {article} {what}", shorten(text)), fix.into()))
}

fn address(text: &str) -> Result<(), Wrong> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    match text.split_once('/') {
        Some((alone, _)) if alone.parse::<IpAddr>().is_ok() => wrong(text, "address", format!("write {alone} alone")),
        _ if text.contains(|c: char| c.is_ascii_alphabetic()) && !text.contains(':') => {
            wrong(text, "IP address", "names are not looked up; write the address itself")
        }
        _ => wrong(text, "IP address", "write for example 10.0.0.11"),
    }
}

fn cidr(text: &str) -> Result<(), Wrong> {
    match text.parse::<IpNet>() {
        Ok(net) if net == net.trunc() => Ok(()),
        Ok(net) => wrong(text, "network: bits beyond the prefix are set", format!("write {}", net.trunc())),
        Err(_) if text.parse::<IpAddr>().is_ok() => {
            wrong(text, "network: its prefix length is missing", format!("write for example {text}/24"))
        }
        Err(_) => wrong(text, "network", "write for example 10.0.0.0/24"),
    }
}

/// The digits at the start of a text, and what follows them without blanks.
fn quantity(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn size(text: &str) -> Result<(), Wrong> {
    if text.parse::<Size>().is_ok() {
        return Ok(());
    }
    let (digits, unit) = quantity(text);
    let letter = unit.chars().next().map(|c| c.to_ascii_uppercase());
    match letter {
        _ if digits.is_empty() || digits.len() > 15 => wrong(text, "size", "write for example 512M or 4G"),
        None => wrong(text, "size: its unit is missing", format!("write {digits}G or {digits}M")),
        Some('.' | ',') => {
            wrong(text, "size: only whole numbers are", "write a smaller unit, for example 1536M for 1.5G")
        }
        Some(c @ ('K' | 'M' | 'G' | 'T')) if unit.len() <= 3 => {
            wrong(text, "size", format!("write {digits}{c}, a power of 1024"))
        }
        Some(_) => wrong(text, "size", "write for example 512M or 4G"),
    }
}

fn speed(text: &str) -> Result<(), Wrong> {
    if text.parse::<LinkSpeed>().is_ok() {
        return Ok(());
    }
    let (digits, unit) = quantity(text);
    let letter = unit.chars().next().map(|c| c.to_ascii_uppercase());
    match (digits.parse::<u64>(), letter) {
        (Ok(n), None) if n >= 1000 && n.is_multiple_of(1000) => {
            wrong(text, "link speed: its unit is missing", format!("write {}G for {n} Mbit/s", n / 1000))
        }
        (Ok(n), None) if n > 0 => wrong(text, "link speed: its unit is missing", format!("write {n}G")),
        (Ok(n), Some(c @ ('G' | 'M'))) if n > 0 => wrong(text, "link speed", format!("write {n}{c}")),
        _ => wrong(text, "link speed", "write for example 10G"),
    }
}

fn range(text: &str) -> Result<(), Wrong> {
    if text.parse::<AddressRange>().is_ok() {
        return Ok(());
    }
    let ends = text.split_once('-').map(|(a, b)| (a.trim().parse::<IpAddr>(), b.trim().parse::<IpAddr>()));
    match ends {
        Some((Ok(first), Ok(last))) if first.is_ipv4() == last.is_ipv4() => {
            wrong(text, "range: its end comes before its start", format!("write {last}-{first}"))
        }
        Some((Ok(first), Err(_))) if first.is_ipv4() => {
            wrong(text, "address range", format!("write both addresses in full, for example {first}-{first}"))
        }
        _ => wrong(text, "address range", "write for example 10.0.0.100-10.0.0.199"),
    }
}

fn uuid(text: &str) -> Result<(), Wrong> {
    match text.parse::<Uuid>() {
        Ok(id) if !id.is_nil() => Ok(()),
        _ => wrong(text, "UUID", "make one with `uuidgen`, or take the fsid of the cluster that exists"),
    }
}

fn patience(text: &str) -> Result<(), Wrong> {
    if text.parse::<Patience>().is_ok() {
        return Ok(());
    }
    let (digits, unit) = quantity(text);
    match (digits.parse::<u64>(), unit) {
        (Ok(n @ 1..=60), "") => wrong(text, "time: its unit is missing", format!("write {n}s")),
        (Ok(n @ 300..=60_000), "") => wrong(text, "time: its unit is missing", format!("write {n}ms")),
        _ => wrong(text, "time between 300ms and 60s", "write for example 900ms or 3s"),
    }
}

/// Words that people write for a key, and the key.
const HABITS: [(&str, &str); 14] = [
    ("ip", "address"),
    ("mgmt", "management"),
    ("storage_ip", "storage_address"),
    ("disks", "osds"),
    ("devices", "osds"),
    ("osd_devices", "osds"),
    ("username", "user"),
    ("login", "user"),
    ("nic", "uplink"),
    ("interface", "uplink"),
    ("subnet", "cidr"),
    ("network", "cidr"),
    ("type", "kind"),
    ("replicas", "size"),
];

/// The known word that is most probably meant.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str> + Clone) -> Option<&'k str> {
    let lower = word.to_lowercase().replace('-', "_");
    let habit = HABITS.iter().find(|(written, _)| *written == lower).map(|(_, meant)| *meant);
    if let Some(meant) = habit.and_then(|meant| known.clone().find(|k| *k == meant)) {
        return Some(meant);
    }
    let far = |k: &str| strsim::damerau_levenshtein(&lower, k);
    known.map(|k| (far(k), k)).filter(|(distance, k)| *distance <= 1.max(k.len() / 3)).min().map(|(_, k)| k)
}

/// A value short enough for a message, on one line.
pub(super) fn shorten(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    if text.chars().count() > 60 { format!("{}...", clean.take(57).collect::<String>()) } else { clean.collect() }
}

/// The whole number that was probably meant by a text: `9_000`, `9,000`, `0x2328`, `9000B`.
pub(super) fn meant_number(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            return u64::from_str_radix(&digits.replace('_', ""), radix).ok();
        }
    }
    let digits: String = text.chars().filter(|c| !matches!(c, '_' | ',' | '\'' | ' ')).collect();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    // What goes on behind a sign, a point or an exponent is another number.
    let rest = &digits[end..];
    if rest.starts_with(['.', '-', '+', 'e', 'E']) { None } else { digits[..end].parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_form_says_what_to_write() {
        let table = [
            ("size", "4"),
            ("size", "4GB"),
            ("size", "4 gib"),
            ("size", "1.5G"),
            ("size", "lots"),
            ("link-speed", "10000"),
            ("link-speed", "10GbE"),
            ("link-speed", "fast"),
            ("ip", "10.0.0.300"),
            ("ip", "10.0.0.3/24"),
            ("ip", "host-1"),
            ("cidr", "10.0.0.3/24"),
            ("cidr", "10.0.0.0"),
            ("cidr", "lan"),
            ("address-range", "10.0.0.9-10.0.0.3"),
            ("address-range", "10.0.0.9-20"),
            ("patience", "3"),
            ("patience", "0.9s"),
            ("patience", "100ms"),
            ("uuid", "1234"),
            ("uuid", "00000000-0000-0000-0000-000000000000"),
        ];
        let lines: Vec<String> = table
            .iter()
            .map(|(format, text)| check(format, text).unwrap_err())
            .map(|(message, fix)| format!("{message} -> {fix}"))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        `4` is not a size: its unit is missing -> write 4G or 4M
        `4GB` is not a size -> write 4G, a power of 1024
        `4 gib` is not a size -> write 4G, a power of 1024
        `1.5G` is not a size: only whole numbers are -> write a smaller unit, for example 1536M for 1.5G
        `lots` is not a size -> write for example 512M or 4G
        `10000` is not a link speed: its unit is missing -> write 10G for 10000 Mbit/s
        `10GbE` is not a link speed -> write 10G
        `fast` is not a link speed -> write for example 10G
        `10.0.0.300` is not an IP address -> write for example 10.0.0.11
        `10.0.0.3/24` is not an address -> write 10.0.0.3 alone
        `host-1` is not an IP address -> names are not looked up; write the address itself
        `10.0.0.3/24` is not a network: bits beyond the prefix are set -> write 10.0.0.0/24
        `10.0.0.0` is not a network: its prefix length is missing -> write for example 10.0.0.0/24
        `lan` is not a network -> write for example 10.0.0.0/24
        `10.0.0.9-10.0.0.3` is not a range: its end comes before its start -> write 10.0.0.3-10.0.0.9
        `10.0.0.9-20` is not an address range -> write both addresses in full, for example 10.0.0.9-10.0.0.9
        `3` is not a time: its unit is missing -> write 3s
        `0.9s` is not a time between 300ms and 60s -> write for example 900ms or 3s
        `100ms` is not a time between 300ms and 60s -> write for example 900ms or 3s
        `1234` is not a UUID -> make one with `uuidgen`, or take the fsid of the cluster that exists
        `00000000-0000-0000-0000-000000000000` is not a UUID -> make one with `uuidgen`, or take the fsid of the cluster that exists
        ");
    }

    #[test]
    fn nearly_right_words_are_recognised() {
        let known = ["address", "storage_address", "osds", "user", "mtu"];
        let nearest = |word| nearest(word, known.into_iter());
        assert_eq!(nearest("adress"), Some("address"));
        assert_eq!(nearest("storage-address"), Some("storage_address"));
        assert_eq!(nearest("disks"), Some("osds"));
        assert_eq!(nearest("MTU"), Some("mtu"));
        assert_eq!(nearest("colour"), None);
    }
}
