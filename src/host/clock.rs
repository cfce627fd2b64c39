//! Clocks: this machine's, and a host's against it.

use super::facts::Clock;
use crate::ssh::{Exec, Remote, RemoteError, RemoteExt};

/// Seconds since 1970 by this machine's clock.
pub(super) fn since_epoch() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// Reads a connected host's clock, as exactly as a short round trip allows.
///
/// # Errors
/// When the host cannot be reached.
pub async fn clock(remote: &dyn Remote) -> Result<Clock, RemoteError> {
    remote.connect().await?;
    let mut best = Clock { precision: f64::MAX, ..Clock::default() };
    for _ in 0..3 {
        let began = since_epoch();
        let output = remote.check(Exec::argv(["date", "+%s.%N"]).as_login()).await?;
        let ended = since_epoch();
        let now: f64 = output.text().trim().parse().unwrap_or_default();
        let precision = (ended - began) / 2.0;
        if precision < best.precision {
            best = Clock { now, difference: now - f64::midpoint(began, ended), precision, ..Clock::default() };
        }
    }
    Ok(best)
}
