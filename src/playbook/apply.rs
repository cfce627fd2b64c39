//! A change becomes a script, a job, or a guarded edit on its host.

use super::bridge;
use super::change::{Action, Change};
use super::diff::settable;
use super::guard::{Fresh, Guarded};
use super::job::check_job;
use super::probe::probe_resources;
use super::resource::{Block, Command, Directory, File, Guard, Resource, Service, User};
use super::shell::{join, quote, unit_word};
use super::state::State;
use crate::error::{Failure, ResultExt};
use crate::ssh::{Exec, Remote, RemoteExt};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use std::fmt::Write as _;
use std::time::Duration;

/// What a small change may take; starting a service may wait for its own start-up.
const LIMIT: Duration = Duration::from_secs(120);
/// What the installation of packages may take, downloads included.
const PACKAGES_LIMIT: Duration = Duration::from_secs(1800);

/// Makes these changes, which were found by a diff of the same resources against `state`, in their order. `begin` is
/// told of each and may stop there.
///
/// # Errors
/// When a change cannot be made or `begin` stops; those before it are made.
pub async fn apply(
    remote: &dyn Remote,
    resources: &[Resource],
    state: &State,
    changes: &[Change],
    fresh: Fresh<'_>,
    mut begin: impl FnMut(&Change) -> Result<(), Failure> + Send,
) -> Result<(), Failure> {
    for change in changes {
        let Some(resource) = resources.iter().find(|r| r.object() == change.object) else {
            return Err(Failure::failed(format!("host {}: {} is not in this step", remote.name(), change.object)));
        };
        begin(change)?;
        let outcome = match resource {
            Resource::Bridge(wanted) => {
                let state = probe_resources(remote, &[resource]).await?;
                bridge::apply(remote, wanted, &state, fresh).await
            }
            Resource::Packages(names) => {
                let name = format!("{}-packages", change.step);
                let job = check_job(remote, &name, &packages(names), PACKAGES_LIMIT).await;
                job.map(|_| ()).map_err(Failure::from)
            }
            Resource::Command(Command { name, apply, guard: Some(guard), .. }) => {
                guarded(name, apply, guard).apply(remote, fresh).await
            }
            Resource::Command(command) => {
                let name = format!("{}-{}", change.step, unit_word(&command.name));
                let job = check_job(remote, &name, &command.apply, Duration::from_secs(command.limit)).await;
                job.map(|_| ()).map_err(Failure::from)
            }
            _ => {
                let script = format!("set -eu\nexport LC_ALL=C\n{}", script(resource, change, state));
                let done = remote.check(Exec::argv(["bash", "-s"]).stdin(script).deadline(LIMIT)).await;
                done.map(|_| ()).map_err(Failure::from)
            }
        };
        outcome.while_doing(|| change.object.clone())?;
    }
    Ok(())
}

fn guarded(name: &str, apply: &str, guard: &Guard) -> Guarded {
    Guarded {
        name: unit_word(name),
        what: format!("command {name}"),
        hint: "what it changes cuts the host off: see what it would set, and that the network around the host goes with it",
        make: apply.to_owned(),
        revert: guard.undo.clone(),
        keep: guard.keep.clone(),
        ..Guarded::default()
    }
}

/// The script of a small change.
pub(super) fn script(resource: &Resource, change: &Change, state: &State) -> String {
    match resource {
        Resource::File(file) => write_file(file),
        Resource::Block(block) => write_block(block),
        Resource::Directory(directory) => make_directory(directory),
        Resource::Absent(path) => {
            format!(
                "if [ -d {0} ] && [ ! -L {0} ]; then echo 'is a directory' >&2; exit 1; fi\nrm -f {0}\n",
                quote(path)
            )
        }
        Resource::Service(service) => service_state(service, change.action),
        Resource::Sysctl(sysctl) => {
            let mut s = write_file(&File::new(&sysctl.file, sysctl.text()));
            for (name, value) in sysctl.values.iter().filter(|(name, _)| settable(name, state)) {
                let path = quote(&format!("/proc/sys/{}", name.replace('.', "/")));
                let _ = writeln!(s, "if [ -w {path} ]; then printf '%s\\n' {} >{path}; fi", quote(value));
            }
            s
        }
        Resource::Modules(modules) => {
            let mut s = write_file(&File::new(&modules.file, modules.text()));
            if !state.container {
                let _ = writeln!(s, "modprobe -a {}", join(&modules.names));
            }
            s
        }
        Resource::User(user) => make_user(user),
        Resource::Packages(_) | Resource::Bridge(_) | Resource::Command(_) => String::new(),
    }
}

/// The script that writes these files, for steps in Rust.
pub fn write_files(files: &[File]) -> String {
    files.iter().map(write_file).collect()
}

/// Writes beside the file and renames: a reader or a kill sees the old one or the new one.
fn write_file(file: &File) -> String {
    let path = quote(&file.path);
    let mut s = format!(
        "p={path}\nmkdir -p \"$(dirname \"$p\")\"\nn=\"$p.rackhand-new\"\n(umask 077; base64 -d >\"$n\" <<'RACKHAND_END'\n{}\nRACKHAND_END\n)\n\
         chown {}:{} \"$n\"\nchmod {} \"$n\"\nsync \"$n\"\n[ ! -d \"$p\" ] || {{ echo \"$p is a directory\" >&2; exit 1; }}\nmv -f \"$n\" \"$p\"\n",
        BASE64.encode(file.text()),
        quote(&file.owner),
        quote(&file.group),
        quote(&file.mode),
    );
    if file.path.starts_with("/etc/systemd/system/") {
        s.push_str("systemctl daemon-reload\n");
    }
    s
}

fn write_block(block: &Block) -> String {
    let (begin, end) = block.marks();
    format!(
        "p={path}\nmkdir -p \"$(dirname \"$p\")\"\nn=\"$p.rackhand-new\"\ntouch \"$p\"\ncp -p \"$p\" \"$n\"\n\
         {{ awk -v b={begin} -v e={end} '$0==b{{on=1}} !on{{print}} $0==e{{on=0}}' \"$p\"\nbase64 -d <<'RACKHAND_END'\n{text}\nRACKHAND_END\n}} >\"$n\"\n\
         sync \"$n\"\nmv -f \"$n\" \"$p\"\n",
        path = quote(&block.path),
        begin = quote(&begin),
        end = quote(&end),
        text = BASE64.encode(block.text()),
    )
}

fn make_directory(directory: &Directory) -> String {
    let Directory { path, mode, owner, group } = directory;
    format!("install -d -m {} -o {} -g {} {}\n", quote(mode), quote(owner), quote(group), quote(path))
}

fn service_state(service: &Service, action: Action) -> String {
    let unit = quote(&service.unit);
    let mut s = format!(
        "if [ \"$(systemctl show -p NeedDaemonReload --value -- {unit})\" = yes ]; then systemctl daemon-reload; fi\n"
    );
    if service.masked {
        let _ = writeln!(s, "systemctl mask --now -- {unit}");
        return s;
    }
    let _ = writeln!(
        s,
        "if [ \"$(systemctl show -p LoadState --value -- {unit})\" = masked ]; then systemctl unmask -- {unit}; fi"
    );
    let enabled = match service.enabled {
        Some(true) => format!("systemctl enable -q -- {unit}\n"),
        Some(false) => format!("systemctl disable -q -- {unit}\n"),
        None => String::new(),
    };
    // systemd refuses a sixth start in a short time.
    let reset = format!("systemctl reset-failed -- {unit} 2>/dev/null || true\n");
    let running = match service.running {
        // A socket cannot start while the service that it hands connections to is running without it.
        Some(true) if action == Action::Run && service.unit.ends_with(".socket") => format!(
            "{reset}svc=$(systemctl show -p Triggers --value -- {unit})\nwas=no; systemctl is-active -q $svc && was=yes\n\
             for i in 1 2 3; do systemctl stop $svc; systemctl restart -- {unit} && break; [ $i -lt 3 ]; done\n\
             if [ $was = yes ]; then systemctl start $svc; fi\n"
        ),
        Some(true) if action == Action::Run => format!("{reset}systemctl restart -- {unit}\n"),
        Some(true) => format!("systemctl start -- {unit}\n"),
        Some(false) => format!("systemctl stop -- {unit}\n"),
        None => String::new(),
    };
    s + &enabled + &running
}

fn make_user(user: &User) -> String {
    let name = quote(&user.name);
    let mut options = Vec::new();
    if let Some(shell) = &user.shell {
        options.extend(["-s".to_owned(), shell.clone()]);
    }
    let mut s = format!(
        "if ! getent passwd {name} >/dev/null; then useradd {} {} {name}; fi\n",
        if user.system { "-r -M" } else { "-m" },
        join(&options)
    );
    if !user.groups.is_empty() {
        options.extend(["-a".to_owned(), "-G".to_owned(), user.groups.join(",")]);
    }
    if !options.is_empty() {
        let _ = writeln!(s, "usermod {} {name}", join(&options));
    }
    s
}

/// The installation, run as a job: it waits for others that install, and finishes what was interrupted.
pub(super) fn packages(names: &[String]) -> String {
    let names = join(names);
    format!(
        r#"set -u
wanted="{names}"
if ! command -v apt-get >/dev/null; then exec dnf -y install {names}; fi
export LC_ALL=C DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l UCF_FORCE_CONFFOLD=1
old="-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
said=$(mktemp -p /run 2>/dev/null || mktemp)
trap 'rm -f "$said"' EXIT
heard() {{ "$@" 2>&1 | tee -a "$said"; return "${{PIPESTATUS[0]}}"; }}
# An interrupted dpkg has to be finished first; another one that runs right now holds the lock until it is done.
for i in $(seq 60); do
  configured=$(dpkg --configure -a --force-confdef --force-confold 2>&1) && break
  # A package that cannot be configured at all does not become so by waiting; the installation says more.
  case $configured in *lock*) sleep 5 ;; *) printf '%s\n' "$configured"; break ;; esac
done
# What is there already stays at its version: nobody has agreed to an upgrade.
try() {{ apt-get -q -y -o DPkg::Lock::Timeout=600 $old --no-install-recommends --no-upgrade --fix-broken "$@" install $wanted; }}
# Nor to anything being removed: only one service sets the time, and chrony takes the place of another.
install() {{
  gone=$(try -s 2>/dev/null | awk '$1 == "Remv" {{ print $2 }}' | grep -vxE 'systemd-timesyncd|ntp|ntpsec|openntpd' | xargs)
  if [ -n "$gone" ]; then
    echo "the installation would remove $gone, which stay as they are; look with \`apt-get -s install $wanted\`"
    exit 4
  fi
  heard try
}}
# A repository that was added since the lists were fetched offers nothing yet, and an older package would be taken.
fetched=$(find /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/preferences.d -newer /var/lib/apt/lists 2>/dev/null | head -n1)
[ -z "$fetched" ] || heard apt-get -q -o DPkg::Lock::Timeout=600 update
# A package of its own since Reef, which then only recommends it.
case " $wanted " in
  *' ceph-osd '*)
    apt-cache policy ceph-volume 2>/dev/null | grep -q '^  Candidate: [0-9]' && wanted="$wanted ceph-volume" ;;
esac
if ! install; then
  : >"$said"
  heard apt-get -q -o DPkg::Lock::Timeout=600 update
  install || {{
    # The last lines are what is shown of all this: those that say why.
    grep -iE 'failed to fetch|could not|cannot|unable to (connect|fetch)|temporary failure|not valid yet|expired|no space|not signed' "$said" | sort -u | tail -n 4
    exit 1
  }}
fi
"#
    )
}
