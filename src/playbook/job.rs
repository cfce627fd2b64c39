//! Long work of a step: a detached job whose script is idempotent.

use crate::ssh::{Exec, Job, JobState, Output, Remote, RemoteError, RemoteExt};
use std::time::Duration;

/// Runs a script on a host as the unit `rackhand-NAME.service` and waits for its end; a lost link neither kills nor
/// doubles it. Returns the end of its output.
///
/// A job of that name that an earlier run (killed since) left is waited for or forgotten first, and then the script
/// is run all the same: scripts have to be idempotent.
///
/// # Errors
/// When the host cannot be reached, the script fails, or it does not end in time; it is then stopped.
pub async fn check_job(
    remote: &dyn Remote,
    name: &str,
    script: &str,
    deadline: Duration,
) -> Result<Output, RemoteError> {
    // The words of a playbook are written for bash.
    let job = Job::new(
        name,
        format!("exec bash /dev/fd/3 3<<'RACKHAND_SCRIPT_END' </dev/null\n{script}\nRACKHAND_SCRIPT_END\n"),
        deadline,
    );
    if job.look(remote).await?.state != JobState::Absent {
        job.wait(remote, |_| {}).await?;
        job.forget(remote).await?;
    }
    match job.run(remote).await {
        Ok(log) => Ok(Output { status: 0, stdout: log.into_bytes(), stderr: Vec::new() }),
        Err(error) => {
            // The error carries the end of the log; the traces would only stand in the way of the next run. One that may
            // still run is left alone: forgetting would stop it, and the next run waits for it.
            if matches!(error, RemoteError::Status { .. } | RemoteError::Killed { .. }) {
                let _ = job.forget(remote).await;
            }
            Err(error)
        }
    }
}

/// Waits for units of ours that an earlier, killed run left running.
///
/// # Errors
/// When they do not end in time.
pub async fn wait_for_units(remote: &dyn Remote, units: &[String], deadline: Duration) -> Result<(), RemoteError> {
    let mut argv = vec!["sh".to_owned(), "-c".to_owned(), WAIT.to_owned(), "wait".to_owned()];
    argv.extend(units.iter().cloned());
    remote.check(Exec::argv(argv).deadline(deadline)).await.map(|_| ())
}

const WAIT: &str = r#"
while systemctl list-units --plain --no-legend --state=active,activating,deactivating "$@" | grep -q .; do sleep 0.2; done
"#;
