//! Long work on a host as a named transient unit: a lost link neither kills nor doubles it.

use crate::ssh::{Exec, Output, Remote, RemoteError, RemoteExt};
use std::time::Duration;

/// Runs a script on a host as the unit `rackhand-NAME.service` and waits for its end.
///
/// A unit of that name that still runs (its starter was killed) is waited for, and then the script is run: scripts
/// have to be idempotent. The script may hold secrets: it goes by stdin into a file only root can read, which is
/// removed when the job has read it. Returns its exit status with the end of its output.
///
/// # Errors
/// When the host cannot be reached or the job does not end in time; it is then stopped.
pub async fn run_job(remote: &dyn Remote, name: &str, script: &str, deadline: Duration) -> Result<Output, RemoteError> {
    let unit = format!("rackhand-{name}");
    let seconds = deadline.as_secs().to_string();
    // The deadline of the unit itself is the true one: it holds even when nobody is connected any more.
    let exec = Exec::argv(["bash", "-c", LAUNCH, "launch", &unit, &seconds])
        .stdin(script.as_bytes())
        .deadline(deadline * 2 + Duration::from_secs(15));
    remote.run(exec).await
}

/// Like [`run_job`], and an exit status other than 0 is an error with the end of its output.
///
/// # Errors
/// As [`run_job`], and when the script fails.
pub async fn check_job(
    remote: &dyn Remote,
    name: &str,
    script: &str,
    deadline: Duration,
) -> Result<Output, RemoteError> {
    let output = run_job(remote, name, script, deadline).await?;
    if output.ok() {
        return Ok(output);
    }
    Err(RemoteError::Status {
        host: remote.name().to_owned(),
        command: format!("rackhand-{name}"),
        status: output.status,
        stderr: output.tail(),
    })
}

/// Waits for units of ours that an earlier, killed run left running.
///
/// # Errors
/// When they do not end in time.
pub async fn wait_for_units(remote: &dyn Remote, units: &[String], deadline: Duration) -> Result<(), RemoteError> {
    let mut argv = vec!["bash".to_owned(), "-c".to_owned(), WAIT.to_owned(), "wait".to_owned()];
    argv.extend(units.iter().cloned());
    remote.check(Exec::argv(argv).deadline(deadline)).await.map(|_| ())
}

const WAIT: &str = r#"
while systemctl is-active -q "$@" 2>/dev/null || systemctl list-units --plain --no-legend --state=activating "$@" | grep -q .; do sleep 0.2; done
"#;

const LAUNCH: &str = r#"
set -eu
unit=$1; limit=$2; dir=/run/rackhand
umask 077
mkdir -p "$dir"
cat >"$dir/$unit.new"
while systemctl is-active -q "$unit" 2>/dev/null; do sleep 0.2; done
systemctl reset-failed "$unit" 2>/dev/null || true
mv "$dir/$unit.new" "$dir/$unit.sh"
rm -f "$dir/$unit.rc"
systemd-run --quiet --unit="$unit" --collect -p RuntimeMaxSec="$limit" -p TimeoutStopSec=20 \
  bash -c 'cd /; exec 3<"$1.sh"; rm -f "$1.sh"; bash /dev/fd/3 >"$1.log" 2>&1 </dev/null; echo $? >"$1.rc.new"; mv "$1.rc.new" "$1.rc"' job "$dir/$unit"
while systemctl is-active -q "$unit"; do sleep 0.1; done
tail -c 65536 "$dir/$unit.log" 2>/dev/null || true
if [ -e "$dir/$unit.rc" ]; then exit "$(cat "$dir/$unit.rc")"; fi
echo "unit $unit was stopped before its end (limit ${limit} s)" >&2
exit 1
"#;
