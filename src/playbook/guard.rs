//! Edits that may cut the tool off: each undoes itself unless the host is reached again.
//!
//! An edit is first made in a way that a reboot forgets. A timer on the host takes it back unless the tool reaches the
//! host over a *new* connection and confirms; only then is it made permanent.

use super::shell::quote;
use crate::error::Failure;
use crate::ssh::{Exec, Remote, RemoteError, RemoteExt};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Seconds after which an unconfirmed edit is taken back; with the taking back itself it stays within 30.
const REVERT_AFTER: u64 = 25;
/// How long making the edit may take.
const MAKE: Duration = Duration::from_secs(15);
/// How long the confirmation itself may take.
const CONFIRM: Duration = Duration::from_secs(12);
/// How the confirmation ends when the host has taken the edit back already.
const UNDONE: i32 = 9;

/// Makes a connection that shares nothing with those there are.
pub type Fresh<'a> = &'a (dyn Fn() -> Result<Arc<dyn Remote>, Failure> + Send + Sync);

/// An edit in bash, part by part; all but `revert` end at their first failure.
#[derive(Debug, Default)]
pub(super) struct Guarded {
    /// Its name, also in units and files on the host.
    pub name: String,
    /// What it is called in errors.
    pub what: String,
    /// What to do when it cuts the host off.
    pub hint: &'static str,
    /// Prints what `make` and `revert` get as `$1`: how it was before.
    pub before: String,
    /// Makes it until the next reboot.
    pub make: String,
    /// Takes it back, also when it was made only in part.
    pub revert: String,
    /// Run over the new connection: fails, saying why, unless the edit has come into force.
    pub check: String,
    /// Makes it permanent.
    pub keep: String,
}

impl Guarded {
    /// Makes the edit, proves over a new connection that the host is still there, and only then makes it permanent.
    ///
    /// # Errors
    /// When the edit fails or the host cannot be reached any more after it: it has then been taken back on the host.
    pub async fn apply(&self, remote: &dyn Remote, fresh: Fresh<'_>) -> Result<(), Failure> {
        let began = Instant::now();
        // The edit itself may cut this very connection: its end is judged by the new one alone.
        match remote.check(Exec::argv(["bash", "-s"]).stdin(self.edit_script()).deadline(MAKE)).await {
            Ok(_) | Err(RemoteError::Lost { .. } | RemoteError::TimedOut { .. }) => {}
            Err(other) => return Err(other.into()),
        }
        self.confirm(fresh, began + Duration::from_secs(REVERT_AFTER)).await
    }

    /// Confirms the edit over a connection made after it, as long as it stands.
    async fn confirm(&self, fresh: Fresh<'_>, until: Instant) -> Result<(), Failure> {
        let confirm = self.confirm_script();
        loop {
            let mut undone = Instant::now() > until;
            let error = match fresh() {
                Err(error) => error,
                Ok(new) => {
                    match new.check(Exec::argv(["bash", "-s"]).stdin(confirm.as_str()).deadline(CONFIRM)).await {
                        Ok(_) => return Ok(()),
                        Err(error @ RemoteError::Status { status: UNDONE, .. }) => {
                            undone = true;
                            error.into()
                        }
                        Err(error @ RemoteError::Status { .. }) => return Err(error.into()),
                        Err(error) => error.into(),
                    }
                }
            };
            if undone {
                let what = format!("{}: the host was not reachable after the edit and has undone it", self.what);
                return Err(error.context(what).hint(self.hint));
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Words of a shell that succeed while an edit of this name waits to be confirmed, or is being taken back: whatever
    /// the host shows then is not what it will be.
    pub fn in_doubt(name: &str) -> String {
        let name = quote(name);
        format!("systemctl is-active -q rackhand-revert-{name}.timer rackhand-revert-{name}.service")
    }

    /// Makes permanent what runs already, over a new connection. An edit that a killed run has left unconfirmed is
    /// confirmed by this.
    ///
    /// # Errors
    /// When the host cannot be reached, or takes an earlier edit back just now.
    pub async fn keep(&self, fresh: Fresh<'_>) -> Result<(), Failure> {
        let name = quote(&self.name);
        let script = format!(
            "set -eu\nsystemctl stop rackhand-revert-{name}.timer 2>/dev/null || true\n\
             if systemctl is-active -q rackhand-revert-{name}.service; then\n\
             echo 'an edit of an earlier run is being taken back just now; run it again' >&2; exit {UNDONE}; fi\n{}",
            self.keep
        );
        fresh()?.check(Exec::argv(["bash", "-s"]).stdin(script).deadline(CONFIRM)).await?;
        Ok(())
    }

    /// Arms the timer, then edits in a unit of its own: a cut connection must not stop it half-way. An edit that fails is
    /// taken back at once, in the timer's unit.
    fn edit_script(&self) -> String {
        let name = quote(&self.name);
        let mut s = format!(
            "set -eu\nmkdir -p /run/rackhand\n\
             systemctl stop rackhand-revert-{name}.timer rackhand-revert-{name}.service 2>/dev/null || true\n\
             before=$(\n{}\n)\n",
            self.before
        );
        s.push_str(&here_file(&format!("/run/rackhand/revert-{}.sh", self.name), &self.revert));
        s.push_str(&here_file(&format!("/run/rackhand/edit-{}.sh", self.name), &format!("set -eu\n{}", self.make)));
        let _ = writeln!(
            s,
            "systemd-run --quiet --collect --unit=rackhand-revert-{name} --on-active={REVERT_AFTER} \
             --timer-property=AccuracySec=100ms bash /run/rackhand/revert-{name}.sh \"$before\"\n\
             said=/run/rackhand/edit-{name}.log\nrm -f \"$said\"\n\
             if ! systemd-run --quiet --collect --wait --unit=rackhand-edit-{name} --property=StandardOutput=append:\"$said\" \
             --property=StandardError=append:\"$said\" bash /run/rackhand/edit-{name}.sh \"$before\"; then\n\
             cat \"$said\" >&2\nsystemctl start rackhand-revert-{name}.service\n\
             systemctl stop rackhand-revert-{name}.timer\nexit 1\nfi"
        );
        s
    }

    /// Not confirmed, the edit is taken back by its timer. A connection may come through only once it has been.
    fn confirm_script(&self) -> String {
        let name = quote(&self.name);
        let armed = format!(
            "systemctl is-active -q rackhand-revert-{name}.timer ||\n\
             {{ echo 'the edit was taken back before it could be confirmed' >&2; exit {UNDONE}; }}\n"
        );
        let (check, keep) = (&self.check, &self.keep);
        format!("set -eu\n{armed}{check}{armed}systemctl stop rackhand-revert-{name}.timer\n{keep}")
    }
}

/// Words that write a file; in base64, because a file may itself hold such words.
pub(super) fn here_file(path: &str, text: &str) -> String {
    let (path, text) = (quote(path), BASE64.encode(text));
    format!("mkdir -p \"$(dirname {path})\"\nbase64 -d >{path} <<'RACKHAND_END'\n{text}\nRACKHAND_END\n")
}
