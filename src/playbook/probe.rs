//! Looks at what a host has, of all that a list of resources asks about: one script, one round trip.

use super::bridge;
use super::guard::Guarded;
use super::resource::Resource;
use super::shell::{join, quote, unit_word};
use super::state::{State, UnitState, sha256};
use crate::ssh::{Exec, Remote, RemoteError, RemoteExt};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

/// Content of a differing file that is brought back for its diff; more is told by size alone.
const DIFF_LIMIT: usize = 256 << 10;
/// What all probes of a host may take together.
const LIMIT: Duration = Duration::from_secs(60);

/// Looks at everything these resources are about. Changes nothing.
///
/// # Errors
/// When the host cannot be reached or does not answer in time.
pub async fn probe_resources(remote: &dyn Remote, resources: &[&Resource]) -> Result<State, RemoteError> {
    let exec = Exec::argv(["bash", "-s"]).stdin(script(resources)).deadline(LIMIT);
    let output = remote.check(exec).await?;
    Ok(parse(&output.text(), resources))
}

/// The script; a function, so that bash has read it all before anything in it can read its stdin.
pub(super) fn script(resources: &[&Resource]) -> String {
    let mut s = String::from("export LC_ALL=C\nmain() {\n");
    s.push_str("printf 'clock\\t%s\\t%s\\n' \"$(date +%s.%N)\" \"$(cut -d' ' -f1 /proc/uptime)\"\n");
    s.push_str("systemd-detect-virt -q --container && printf 'container\\n'\n");
    files(resources, &mut s);
    packages(resources, &mut s);
    units(resources, &mut s);
    for resource in resources {
        small(resource, &mut s);
    }
    if resources.iter().any(|r| matches!(r, Resource::Bridge(_))) {
        s.push_str("printf 'links\\t%s\\n' \"$(ip -j -d addr show | tr -d '\\n')\"\n");
        s.push_str("printf 'routes\\t%s\\n' \"$(ip -j route show default | tr -d '\\n')\"\n");
        s.push_str("systemctl is-active -q systemd-networkd && printf 'networkd\\n'\n");
        s.push_str(NETWORK_FILES);
    }
    s.push_str("}\nmain </dev/null 2>/dev/null\nexit 0\n");
    s
}

/// Paths with their wanted hash, where the content may be shown.
fn paths<'a>(resources: &[&'a Resource]) -> Vec<(&'a str, Option<String>)> {
    let mut paths = Vec::new();
    for resource in resources {
        match resource {
            Resource::File(f) => paths.push((f.path.as_str(), (!f.secret).then(|| sha256(f.text().as_bytes())))),
            Resource::Sysctl(s) => paths.push((&s.file, Some(sha256(s.text().as_bytes())))),
            Resource::Modules(m) => paths.push((&m.file, Some(sha256(m.text().as_bytes())))),
            Resource::Block(b) => paths.push((&b.path, None)),
            Resource::Directory(d) => paths.push((&d.path, None)),
            Resource::Absent(path) => paths.push((path, None)),
            Resource::Service(s) => paths.extend(s.restart_on.iter().map(|p| (p.as_str(), None))),
            _ => {}
        }
    }
    paths
}

fn files(resources: &[&Resource], s: &mut String) {
    let paths = paths(resources);
    if paths.is_empty() {
        return;
    }
    let all = join(paths.iter().map(|(path, _)| path).collect::<BTreeSet<_>>());
    let hashed = join(paths.iter().filter(|(_, want)| want.is_some()).map(|(p, _)| p).collect::<BTreeSet<_>>());
    let secret: BTreeSet<&str> = resources
        .iter()
        .filter_map(|r| match r {
            Resource::File(f) if f.secret => Some(f.path.as_str()),
            _ => None,
        })
        .collect();
    let _ = writeln!(s, "stat --printf 'stat\\t%n\\t%F\\t%a\\t%U\\t%G\\t%.6Y\\n' -- {all}");
    let _ = writeln!(
        s,
        "declare -A sums\nwhile read -r sum path; do sums[$path]=$sum; printf 'sum\\t%s\\t%s\\n' \"$path\" \"$sum\"; \
         done < <(sha256sum -- {hashed} {} /dev/null)",
        join(&secret)
    );
    let _ = writeln!(
        s,
        "content() {{ [ -f \"$1\" ] && [ \"${{sums[$1]}}\" != \"$2\" ] && \
         printf 'content\\t%s\\t%s\\n' \"$1\" \"$(head -c {DIFF_LIMIT} -- \"$1\" | base64 -w0)\"; }}"
    );
    for (path, want) in paths {
        if let Some(want) = want {
            let _ = writeln!(s, "content {} {want}", quote(path));
        }
    }
}

fn packages(resources: &[&Resource], s: &mut String) {
    let names: BTreeSet<&str> = resources
        .iter()
        .filter_map(|r| match r {
            Resource::Packages(names) => Some(names.iter().map(String::as_str)),
            _ => None,
        })
        .flatten()
        .collect();
    if names.is_empty() {
        return;
    }
    let _ = write!(
        s,
        r#"if command -v dpkg-query >/dev/null; then
dpkg-query -W -f '${{db:Status-Abbrev}}\t${{Package}}\n' | awk -F'\t' -v want={} '
BEGIN {{ n = split(want, w, " "); for (i = 1; i <= n; i++) wanted[w[i]] = 1 }}
{{ state = substr($1, 2, 1) }}
state ~ /[UFHWt]/ || substr($1, 3, 1) == "R" {{ print "broken\t" $2; next }}
state == "i" && ($2 in wanted) {{ print "installed\t" $2 }}'
[ -n "$(ls -A /var/lib/dpkg/updates)" ] && printf 'broken\tdpkg\n'
elif command -v rpm >/dev/null; then
rpm -q --qf 'installed\t%{{NAME}}\n' {} | grep ^installed
fi
"#,
        quote(&names.iter().copied().collect::<Vec<_>>().join(" ")),
        join(&names)
    );
}

fn unit_names<'a>(resources: &[&'a Resource]) -> Vec<&'a str> {
    let services = resources.iter().filter_map(|r| match r {
        Resource::Service(s) => Some(s.unit.as_str()),
        _ => None,
    });
    services.collect::<BTreeSet<_>>().into_iter().collect()
}

fn units(resources: &[&Resource], s: &mut String) {
    let names = unit_names(resources);
    if !names.is_empty() {
        let properties = "LoadState,ActiveState,UnitFileState,ActiveEnterTimestampMonotonic";
        let _ = writeln!(s, "printf 'units\\n'\nsystemctl show --no-pager -p {properties} -- {}", join(names));
        s.push_str("printf '\\nend\\n'\n");
    }
}

/// Probes that cost no process each, or are rare.
fn small(resource: &Resource, s: &mut String) {
    match resource {
        Resource::Block(b) => {
            let (begin, end) = b.marks();
            let _ = writeln!(
                s,
                "printf 'block\\t%s\\t%s\\t%s\\n' {} {} \"$(awk -v b={} -v e={} '$0==b{{on=1}} on{{print}} $0==e{{on=0}}' {} | base64 -w0)\"",
                quote(&b.path),
                quote(&b.name),
                quote(&begin),
                quote(&end),
                quote(&b.path)
            );
        }
        Resource::Sysctl(sysctl) => {
            for name in sysctl.values.keys() {
                let path = format!("/proc/sys/{}", name.replace('.', "/"));
                let _ = writeln!(
                    s,
                    "v=; w=no; read -r v <{0} && {{ [ -w {0} ] && w=yes; printf 'sysctl\\t%s\\t%s\\t%s\\n' {1} \"$w\" \"$v\"; }}",
                    quote(&path),
                    quote(name)
                );
            }
        }
        Resource::Modules(modules) => {
            for name in &modules.names {
                let _ =
                    writeln!(s, "[ -d /sys/module/{} ] && printf 'module\\t%s\\n' {}", name.replace('-', "_"), name);
            }
        }
        Resource::User(user) => {
            let name = quote(&user.name);
            let _ = writeln!(
                s,
                "u=$(getent passwd {name}) && printf 'user\\t%s\\t%s\\t%s\\n' {name} \"${{u##*:}}\" \"$(id -Gn {name})\""
            );
        }
        Resource::Bridge(bridge) => s.push_str(&bridge::probe(bridge)),
        Resource::Command(command) => {
            let mut probe = command.probe.clone();
            if command.guard.is_some() {
                probe = format!("if {}; then exit 1; fi\n{probe}", Guarded::in_doubt(&unit_word(&command.name)));
            }
            let _ = writeln!(
                s,
                "timeout -k 2 20 bash -c {} >/dev/null; r=$?; w=\n[ $r = 0 ] || w=$(timeout -k 2 20 bash -c {} | head -n1 | tr -d '\\t')\n\
                 printf 'command\\t%s\\t%s\\t%s\\n' {} $r \"$w\"",
                quote(&probe),
                quote(command.shows.as_deref().unwrap_or("true")),
                quote(&command.name)
            );
        }
        _ => {}
    }
}

pub(super) fn parse(text: &str, resources: &[&Resource]) -> State {
    let mut state = State::default();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["clock", clock, uptime] => {
                state.clock = number(clock);
                state.uptime = number(uptime);
            }
            ["container"] => state.container = true,
            ["networkd"] => state.networkd = true,
            ["stat", path, kind, mode, owner, group, mtime] => {
                let file = state.files.entry(path.to_owned()).or_default();
                // stat calls an empty file a "regular empty file".
                file.kind = kind.replace("regular empty file", "regular file");
                (file.mode, file.owner, file.group) = (mode.to_owned(), owner.to_owned(), group.to_owned());
                file.mtime = number(mtime);
            }
            ["sum", path, sum] => {
                if let Some(file) = state.files.get_mut(path) {
                    file.sha256 = sum.to_owned();
                }
            }
            ["content", path, encoded] => {
                if let Some(file) = state.files.get_mut(path) {
                    file.content = BASE64.decode(encoded).ok();
                }
            }
            ["block", path, name, encoded] => {
                let text = text_of(encoded);
                if !text.is_empty() {
                    state.blocks.insert((path.to_owned(), name.to_owned()), text);
                }
            }
            ["installed", name] => drop(state.installed.insert(name.to_owned())),
            ["broken", name] => drop(state.broken.insert(name.to_owned())),
            ["units"] => parse_units(&mut lines, &unit_names(resources), &mut state),
            ["sysctl", name, writable, ref value @ ..] => {
                let value = value.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
                state.sysctls.insert(name.to_owned(), (value, writable == "yes"));
            }
            ["module", name] => drop(state.modules.insert(name.to_owned())),
            ["user", name, shell, groups] => {
                let groups = groups.split_whitespace().map(str::to_owned).collect();
                state.users.insert(name.to_owned(), (shell.to_owned(), groups));
            }
            ["command", name, status, shows] => {
                let known = (status.parse().unwrap_or(-1), shows.trim().to_owned());
                state.commands.insert(name.to_owned(), known);
            }
            ["links", json] => state.links = serde_json::from_str(json).unwrap_or_default(),
            ["routes", json] => state.routes = serde_json::from_str(json).unwrap_or_default(),
            ["netfile", bridge, file, encoded] => {
                state.bridges.entry(bridge.to_owned()).or_default().files.insert(file.to_owned(), text_of(encoded));
            }
            ["origin", bridge, path, encoded] => {
                state.bridges.entry(bridge.to_owned()).or_default().origin = (path.to_owned(), text_of(encoded));
            }
            ["netconf", path, encoded] => {
                state.network_files.insert(path.to_owned(), text_of(encoded));
            }
            ["begun", bridge] => drop(state.begun.insert(bridge.to_owned())),
            _ => {}
        }
    }
    state
}

/// Sends the files that say what the host's network is after its next boot.
const NETWORK_FILES: &str = r#"for f in /etc/network/interfaces /etc/network/interfaces.d/* /etc/netplan/*.yaml \
  /{etc,run}/systemd/network/*.{network,netdev} /{etc,run}/systemd/network/*.d/*.conf; do
[ -f "$f" ] && printf 'netconf\t%s\t%s\n' "$f" "$(base64 -w0 "$f")"
done
for f in /run/rackhand/revert-*.sh; do f=${f##*/revert-}; [ "$f" = '*.sh' ] || printf 'begun\t%s\n' "${f%.sh}"; done
"#;

fn text_of(encoded: &str) -> String {
    String::from_utf8_lossy(&BASE64.decode(encoded).unwrap_or_default()).into_owned()
}

/// `systemctl show` answers in the order asked, blocks separated by an empty line.
fn parse_units<'a>(lines: &mut impl Iterator<Item = &'a str>, names: &[&str], state: &mut State) {
    let mut names = names.iter();
    let mut unit = UnitState::default();
    let mut any = false;
    for line in lines {
        if let Some((key, value)) = line.split_once('=') {
            any = true;
            match key {
                "LoadState" => unit.load = value.to_owned(),
                "ActiveState" => unit.active = value.to_owned(),
                "UnitFileState" => unit.file = value.to_owned(),
                "ActiveEnterTimestampMonotonic" => unit.since = number(value) / 1e6,
                _ => {}
            }
            continue;
        }
        if any && let Some(name) = names.next() {
            state.units.insert((*name).to_owned(), std::mem::take(&mut unit));
            any = false;
        }
        if line == "end" {
            return;
        }
    }
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or(0.0)
}
