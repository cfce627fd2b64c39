//! cloud-init's user data: what it is, told before a guest is made of it.
//!
//! cloud-init takes what it does not know for nothing, and says so in a log inside the guest: a guest without a login. So each
//! kind it takes is known here, and everything else is refused with the reason (cloud-init: `handlers/__init__.py`,
//! `user_data.py`).

use crate::error::Failure;
use crate::quote::{plain, yaml};
use std::io::Read;

/// Most bytes of user data once they are unpacked; more would only be bytes of a mistake.
const UNPACKED: u64 = 16 << 20;
/// Bytes in which cloud-init looks for the header of a MIME message.
const MIME_HEAD: usize = 4096;
/// First line of a template; the line after it says what comes out of it.
const TEMPLATE: &str = "## template: jinja";

/// The cloud-config that lets these keys in, where no file is given.
pub fn user_data_for_keys(keys: &[String]) -> String {
    let mut text = "#cloud-config\n".to_owned();
    if !keys.is_empty() {
        text.push_str("disable_root: false\nssh_authorized_keys:\n");
        for key in keys {
            text.push_str(&format!("  - {}\n", yaml(key.trim())));
        }
    }
    text
}

/// Refuses user data that no guest would understand.
///
/// # Errors
/// When it is none of the kinds cloud-init takes, or is one and cannot be read as such.
pub fn check_user_data(data: &[u8], name: &str) -> Result<(), Failure> {
    check(data).map_err(|wrong| Failure::usage(format!("user data {name}: {}", wrong.what)).hint(wrong.fix))
}

/// Why user data is refused, and what helps.
struct Wrong {
    what: String,
    fix: &'static str,
}

fn wrong(what: impl Into<String>, fix: &'static str) -> Wrong {
    Wrong { what: what.into(), fix }
}

fn check(data: &[u8]) -> Result<(), Wrong> {
    if data.starts_with(b"\x1f\x8b") {
        let mut unpacked = Vec::new();
        let read = flate2::read::MultiGzDecoder::new(data).take(UNPACKED + 1).read_to_end(&mut unpacked);
        if let Err(error) = read {
            return Err(wrong(format!("it is damaged gzip: {error}"), "compress it again"));
        }
        if unpacked.len() as u64 > UNPACKED {
            return Err(wrong(format!("it has more than {} MiB when unpacked", UNPACKED >> 20), "give less of it"));
        }
        return text(&unpacked);
    }
    text(data)
}

/// Other formats, by their first bytes.
const BINARIES: [(&[u8], &str); 5] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"\x04\x22\x4d\x18", "lz4"),
];

fn text(data: &[u8]) -> Result<(), Wrong> {
    if let Some((_, what)) = BINARIES.iter().find(|(magic, _)| data.starts_with(magic)) {
        return Err(wrong(format!("it is compressed with {what}, cloud-init unpacks gzip alone"), "unpack it first"));
    }
    if data.starts_with(b"\xff\xfe") || data.starts_with(b"\xfe\xff") {
        return Err(wrong("it is UTF-16", "save it as UTF-8"));
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return Err(wrong("it is neither text in UTF-8 nor gzip", "save it as UTF-8"));
    };
    if text.starts_with('\u{feff}') {
        return Err(wrong(
            "it begins with a byte order mark, behind which cloud-init finds no kind",
            "save it as UTF-8 without one",
        ));
    }
    if text.contains('\0') {
        return Err(wrong("it holds a NUL byte", "save it as plain text"));
    }
    if text.trim().is_empty() {
        return Err(wrong("it is empty", "leave --user-data out for a guest without any"));
    }
    // As cloud-init does: anything with that header is a message, whatever it begins with.
    let head = text.as_bytes()[..text.len().min(MIME_HEAD)].to_ascii_lowercase();
    if head.windows(13).any(|window| window == b"mime-version:") {
        return mime(text);
    }
    by_first_line(text)
}

fn mime(text: &str) -> Result<(), Wrong> {
    let header = text.split("\n\n").next().unwrap_or_default().split("\r\n\r\n").next().unwrap_or_default();
    let header = header.to_ascii_lowercase();
    if header.contains("multipart/") && !header.contains("boundary=") {
        return Err(wrong(
            "its MIME header names no boundary between its parts",
            "make it with `cloud-init devel make-mime`",
        ));
    }
    Ok(())
}

/// cloud-init passes over blanks before the first word, and over its case.
fn by_first_line(text: &str) -> Result<(), Wrong> {
    let text = text.trim_start();
    let lower =
        text.get(..text.len().min(64)).map_or_else(|| text.chars().take(64).collect(), str::to_owned).to_lowercase();
    let begins = |word: &str| lower.starts_with(word);
    if begins(TEMPLATE) {
        let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
        if rest.trim().is_empty() {
            return Err(wrong("it is a template of nothing", "put `#cloud-config` and its text behind the first line"));
        }
        // What it says of itself may come out of the template; what stands there plainly is checked.
        return if rest.trim_start().starts_with("{") { Ok(()) } else { kind(rest.trim_start(), true) };
    }
    kind(text, false)
}

fn kind(text: &str, template: bool) -> Result<(), Wrong> {
    let first = text.lines().next().unwrap_or_default();
    let lower = first.to_lowercase();
    // The longer word first: the shorter one is its beginning.
    let known = ["#cloud-config-archive", "#cloud-config-jsonp", "#cloud-config", "#cloud-boothook", "#part-handler"];
    match known.into_iter().chain(["#include-once", "#include", "#!"]).find(|word| lower.starts_with(word)) {
        // What comes out of a template is not known here.
        Some("#cloud-config" | "#cloud-config-archive") if template => Ok(()),
        Some("#cloud-config") => config(text, false),
        Some("#cloud-config-archive") => config(text, true),
        Some("#cloud-config-jsonp") => {
            let body = text.split_once('\n').map_or("", |(_, body)| body);
            let fine = serde_json::from_str::<serde_json::Value>(body).is_ok();
            if fine { Ok(()) } else { Err(wrong("its JSON patch is not JSON", "correct it")) }
        }
        Some("#!") if first.len() > 2 && text[..text.find('\n').unwrap_or(text.len())].ends_with('\r') => Err(wrong(
            format!(
                "its lines end in CR LF: the guest would look for the program `{}` with a carriage return",
                plain(&first[2..], 60)
            ),
            "save it with LF alone (dos2unix)",
        )),
        Some("#!") if first[2..].trim().is_empty() => Err(wrong("its `#!` names no program", "write `#!/bin/sh`")),
        Some("#include" | "#include-once") => {
            let lines =
                text.lines().map(|l| l.trim_start_matches("#include-once").trim_start_matches("#include").trim());
            let urls = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).count();
            if urls > 0 { Ok(()) } else { Err(wrong("it includes no URL", "write one URL a line behind `#include`")) }
        }
        Some(_) => Ok(()),
        None => Err(unknown(text, &lower)),
    }
}

/// Whether a cloud-config can be read at all; its keys are cloud-init's business.
fn config(text: &str, archive: bool) -> Result<(), Wrong> {
    let options = || serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
    if let Err(error) = serde_saphyr::from_str_with_options::<serde::de::IgnoredAny>(text, options()) {
        let what = format!("it is not YAML: {}", plain(&error.to_string(), 160));
        return Err(wrong(what, "correct it: cloud-init would ignore all of it"));
    }
    match serde_saphyr::from_str_with_options::<serde_json::Value>(text, options()) {
        Ok(serde_json::Value::Null) => Ok(()),
        Ok(serde_json::Value::Object(_)) if !archive => Ok(()),
        Ok(serde_json::Value::Array(_)) if archive => Ok(()),
        Ok(_) => {
            let what =
                if archive { "an archive holds a list of parts" } else { "a cloud-config holds `key: value` pairs" };
            Err(wrong(format!("{what}, this holds something else"), "see docs.cloud-init.io for its form"))
        }
        // It has something that YAML has and JSON has not.
        Err(_) => Ok(()),
    }
}

/// What else it may be.
fn unknown(text: &str, lower: &str) -> Wrong {
    let squeezed: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    let trimmed = text.trim_start();
    if lower.starts_with("#upstart-job") {
        return wrong(
            "it is an upstart job, which cloud-init does not run any more",
            "make a script of it: `#!/bin/sh`",
        );
    }
    if squeezed.starts_with("cloudconfig") {
        return wrong(
            format!("its first line is `{}`, cloud-init looks for `#cloud-config`", plain(lower, 60)),
            "write the first line exactly so",
        );
    }
    if lower.starts_with("content-type:") {
        return wrong(
            "it is a MIME message without a `MIME-Version:` line, which cloud-init does not take for one",
            "add `MIME-Version: 1.0` to its header",
        );
    }
    if lower.starts_with("<powershell") || lower.starts_with("<script") || lower.starts_with("rem cmd") {
        return wrong(
            "it is for Windows (cloudbase-init), cloud-init would ignore it",
            "begin it with `#cloud-config`, or with `#!` for a script",
        );
    }
    if lower.starts_with("<!doctype") || lower.starts_with("<html") {
        return wrong("it is a web page", "check where it was fetched from");
    }
    if trimmed.starts_with('{') && trimmed.contains("\"ignition\"") {
        return wrong(
            "it is an Ignition config, which cloud-init does not read",
            "begin it with `#cloud-config`, or with `#!` for a script",
        );
    }
    if ["I2Nsb3VkLWNvbmZpZ", "IyEv", "I2luY2x1ZGU", "H4sI"].iter().any(|start| trimmed.starts_with(start)) {
        return wrong("it is base64, which cloud-init does not decode", "decode it first: base64 -d");
    }
    wrong(
        "cloud-init would ignore it: its first line says nothing about its kind",
        "begin it with `#cloud-config`, or with `#!` for a script",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn refused(data: &[u8]) -> String {
        check_user_data(data, "x").unwrap_err().to_string().replacen("user data x: ", "", 1)
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(text.as_bytes()).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn every_kind_cloud_init_takes_is_taken() {
        let mime = "Content-Type: multipart/mixed; boundary=\"==x==\"\nMIME-Version: 1.0\n\n--==x==\n";
        for text in [
            "#cloud-config\n",
            "#cloud-config\npackages: [vim]\npackages: [nano]\n",
            "#Cloud-Config\r\npackages:\r\n  - vim\r\n",
            "\n  #cloud-config\nx: 1\n",
            "#cloud-config-archive\n- type: text/cloud-boothook\n  content: x\n",
            "#cloud-config-jsonp\n[{\"op\": \"add\", \"path\": \"/x\", \"value\": 1}]\n",
            "#!/bin/sh\necho x\n",
            "#!/usr/bin/env python3\r\n".trim_end_matches("\r\n"),
            "#include\nhttps://example.com/x\n",
            "#include https://example.com/x\n",
            "#include-once\nhttps://example.com/x\n",
            "#cloud-boothook\n#!/bin/sh\n",
            "#part-handler\ndef list_types(): pass\n",
            "## template: jinja\n#cloud-config\nhostname: {{ v1.local_hostname }}\n",
            "## template: jinja\n#!/bin/sh\n",
            "## template: jinja\n{% if true %}#cloud-config{% endif %}\n",
            mime,
            "MIME-Version: 1.0\nContent-Type: text/cloud-config\n\n#cloud-config\n",
            "From x Thu Jan  1 00:00:00 1970\nContent-Type: text/x-shellscript\nMIME-Version: 1.0\n\n#!/bin/sh\n",
        ] {
            check_user_data(text.as_bytes(), "x").unwrap_or_else(|f| panic!("{text:?}: {f}"));
            check_user_data(&gzip(text), "x").unwrap_or_else(|f| panic!("gzip of {text:?}: {f}"));
        }
    }

    #[test]
    fn what_cloud_init_would_ignore_is_refused_with_the_reason() {
        let table: [(&[u8], &str); 27] = [
            (b"packages: []\n", "cloud-init would ignore it: its first line says nothing about its kind"),
            (b"", "it is empty"),
            (b"\n \n", "it is empty"),
            (b"# cloud-config\nx: 1\n", "its first line is `# cloud-config`, cloud-init looks for `#cloud-config`"),
            (b"#cloud_config\n", "its first line is `#cloud_config`, cloud-init looks for `#cloud-config`"),
            (b"#cloud-config\n- a\n", "a cloud-config holds `key: value` pairs, this holds something else"),
            (b"#cloud-config-archive\na: b\n", "an archive holds a list of parts, this holds something else"),
            (b"#cloud-config-jsonp\nx\n", "its JSON patch is not JSON"),
            (b"\xef\xbb\xbf#cloud-config\n", "it begins with a byte order mark, behind which cloud-init finds no kind"),
            (b"\xff\xfe#\0c\0", "it is UTF-16"),
            (b"#cloud-config\nx: \xe9\n", "it is neither text in UTF-8 nor gzip"),
            (
                b"#!/bin/sh\r\necho\r\n",
                "its lines end in CR LF: the guest would look for the program `/bin/sh` with a carriage return",
            ),
            (b"#!\necho\n", "its `#!` names no program"),
            (b"#include\n# none\n", "it includes no URL"),
            (b"## template: jinja\n", "it is a template of nothing"),
            (b"## template: jinja\nx: 1\n", "cloud-init would ignore it: its first line says nothing about its kind"),
            (b"#upstart-job\n", "it is an upstart job, which cloud-init does not run any more"),
            (
                b"Content-Type: multipart/mixed; boundary=x\n\n--x\n",
                "it is a MIME message without a `MIME-Version:` line, which cloud-init does not take for one",
            ),
            (
                b"MIME-Version: 1.0\nContent-Type: multipart/mixed\n\n--x\n",
                "its MIME header names no boundary between its parts",
            ),
            (b"<powershell>\n", "it is for Windows (cloudbase-init), cloud-init would ignore it"),
            (b"{\"ignition\": {}}", "it is an Ignition config, which cloud-init does not read"),
            (b"I2Nsb3VkLWNvbmZpZwo=\n", "it is base64, which cloud-init does not decode"),
            (b"\xfd7zXZ\0x", "it is compressed with xz, cloud-init unpacks gzip alone"),
            (b"\x28\xb5\x2f\xfdx", "it is compressed with zstd, cloud-init unpacks gzip alone"),
            (b"PK\x03\x04x", "it is compressed with zip, cloud-init unpacks gzip alone"),
            (b"<!DOCTYPE html>", "it is a web page"),
            (b"#!/bin/sh\n\0", "it holds a NUL byte"),
        ];
        for (data, expected) in table {
            assert_eq!(refused(data), expected);
        }
        assert!(refused(b"#cloud-config\na: [1\n").starts_with("it is not YAML: "));
        assert!(refused(&gzip("packages: []\n")).starts_with("cloud-init would ignore it"));
        assert!(refused(&gzip("#cloud-config\n")[..12]).starts_with("it is damaged gzip"));
        assert!(refused(&gzip(&format!("#!/bin/sh\n{}", "x".repeat(17 << 20)))).starts_with("it has more than 16 MiB"));
    }
}
