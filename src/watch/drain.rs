//! What is done about a host that lives and does not do its work.

use crate::error::{Failure, Kind};
use crate::guest::GuestContext;
use crate::movement::{Evacuation, Options, execute, link};
use crate::ssh::Exec;
use crate::ui::counted;
use std::time::Duration;

/// The longest a guest may stand still at the end of its move.
const DOWNTIME: Duration = Duration::from_secs(1);
/// How long a daemon may take to end and to begin: systemd kills it after 90 s.
const RESTART: Duration = Duration::from_secs(150);

/// Starts whichever libvirt daemon the host has anew. Guests are processes of their own, and go on.
const LIBVIRT: &str = r#"
set -eu
for unit in virtqemud.service libvirtd.service; do
  if systemctl is-active -q "$unit" || systemctl is-enabled -q "$unit" 2>/dev/null; then
    systemctl restart "$unit"
    exit 0
  fi
done
echo 'it has no libvirt daemon' >&2
exit 3
"#;

/// Moves the guests of a slow host away without stopping them. It is not put into maintenance: should it die meanwhile, the
/// watch has to act.
///
/// # Errors
/// When nothing could be planned, for the host or the cluster does not answer; or when some guests stay.
pub(super) async fn drain(rack: &GuestContext, host: &str) -> Result<String, Failure> {
    let cancel_level = rack.ui.cancel_level();
    let options = Options { bandwidth: None, max_downtime: DOWNTIME, link: link(rack), deadline: None };
    let evacuation = Evacuation::plan(rack, host, &options, &cancel_level, true).await?;
    let plan = &evacuation.plan;
    let report = execute(rack, plan, &options, cancel_level).await;
    let moved = counted(report.moved().count(), "guest");
    let stay = report.guests.iter().filter(|guest| guest.outcome != "moved");
    let stay = stay.map(|guest| format!("{} ({})", guest.guest, guest.reason.as_deref().unwrap_or(guest.outcome)));
    let stay: Vec<String> = stay.chain(plan.refused.iter().chain(&plan.unsettled).map(ToString::to_string)).collect();
    match stay.is_empty() {
        true => Ok(format!("host {host} is slow: {moved} moved away")),
        false => Err(Failure::failed(format!("it is slow: {moved} moved away; these stay: {}", stay.join("; ")))),
    }
}

/// Starts the libvirt of a host anew, which does not answer.
///
/// # Errors
/// When the host cannot be asked, or its daemon does not start.
pub(super) async fn mend_libvirt(rack: &GuestContext, host: &str) -> Result<String, Failure> {
    let remote = rack.fleet.get(host)?;
    let output = remote.run(Exec::script(LIBVIRT, std::iter::empty::<String>()).deadline(RESTART)).await?;
    if !output.ok() {
        return Err(Failure::msg(Kind::Failed, format!("its libvirt did not start anew: {}", output.tail())));
    }
    Ok(format!("host {host}: its libvirt was started anew; its guests ran on"))
}
