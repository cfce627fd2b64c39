//! What a move that failed says: the host it is about, and a hint that is true for it. Pure.

use super::plan::Move;
use crate::error::{Failure, Kind};
use crate::libvirt::VirtError;

/// libvirt's words for a QEMU that ended while the guest arrived. The source reports them, but its own QEMU goes on.
const TARGET_ENDED: [&str; 4] =
    ["connecting to monitor", "closed the monitor", "read from monitor", "died unexpectedly"];
/// Words of a target that could not even begin.
const TARGET_FULL: &str = "No space left on device";
/// Words of certificates that do not go together.
const CERTIFICATE: [&str; 3] = ["ertificate", "TLS handshake", "tls-creds"];

/// The failure of a move whose guest is seen where it was; without an error it just did not happen.
pub fn explain(a_move: &Move, error: Option<&VirtError>) -> Failure {
    let Move { guest, from, to, .. } = a_move;
    let again = "once that is mended, the same command moves it";
    let Some(error) = error else {
        return Failure::msg(Kind::Partial, "the move did not happen").hint("the same command, run again, moves it");
    };
    let VirtError::Failed { message, code, .. } = error else {
        return Failure::msg(Kind::Partial, error.to_string()).hint(again);
    };
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let failure = |text: String| Failure::msg(Kind::Partial, text);
    if *code == 0 {
        // Our own words: it was aborted, or never asked for.
        return failure(error.to_string()).hint("the same command, run again, tries it once more");
    }
    if says(&CERTIFICATE) {
        return failure(format!("hosts {from} and {to} do not accept each other's certificates: {message}"))
            .hint("`rackhand provision` issues them anew; then the same command moves it");
    }
    if says(&[TARGET_FULL]) {
        return failure(format!("host {to} has no space left: {message}"))
            .hint(format!("look at `df /run /var` on {to}; {again}"));
    }
    if says(&TARGET_ENDED) {
        return failure(format!("host {to}: its QEMU ended while the guest arrived: {message}"))
            .hint(format!("/var/log/libvirt/qemu/{guest}.log on {to} says more; {again}"));
    }
    failure(error.to_string()).hint(again)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::placement::Need;
    use uuid::Uuid;

    fn told(code: u32, message: &str) -> String {
        let (from, to) = ("h1".to_owned(), "h2".to_owned());
        let (guest, need) = ("web".into(), Need::default());
        let a_move =
            Move { guest, uuid: Uuid::nil(), from, to, bytes: 1, seconds: 1.0, priority: 0, emulated: false, need };
        let error = VirtError::Failed { host: "h1".into(), call: "move the guest", code, message: message.into() };
        let failure = explain(&a_move, Some(&error));
        format!("{failure} | {}", failure.hints.join("; "))
    }

    #[test]
    fn the_host_that_is_to_blame_is_named_with_a_hint_that_is_true() {
        insta::assert_snapshot!(
            [
                told(1, "internal error: process exited while connecting to monitor: Could not open '/root/a.iso'"),
                told(9, "operation failed: migration failed: Cannot check peer certificate: not signed by a known authority"),
                told(38, "Unable to write /run/libvirt/qemu/x.xml: No space left on device"),
                told(0, "aborted: no progress for 30 s"),
                told(9, "operation failed: job 'migration out' failed"),
            ]
            .join("\n"),
            @r"
        host h2: its QEMU ended while the guest arrived: internal error: process exited while connecting to monitor: Could not open '/root/a.iso' | /var/log/libvirt/qemu/web.log on h2 says more; once that is mended, the same command moves it
        hosts h1 and h2 do not accept each other's certificates: operation failed: migration failed: Cannot check peer certificate: not signed by a known authority | `rackhand provision` issues them anew; then the same command moves it
        host h2 has no space left: Unable to write /run/libvirt/qemu/x.xml: No space left on device | look at `df /run /var` on h2; once that is mended, the same command moves it
        host h1: cannot move the guest: aborted: no progress for 30 s | the same command, run again, tries it once more
        host h1: cannot move the guest: operation failed: job 'migration out' failed | once that is mended, the same command moves it
        "
        );
    }
}
