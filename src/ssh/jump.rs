//! The way through jump hosts.

use super::quote::quote;
use std::path::Path;

/// The way through jump hosts, as a value of ssh's `ProxyCommand`; `jump` is what `ssh -J` takes.
///
/// `-J` itself would leave what they say without a reader: beside ControlPersist, ssh gives its proxy /dev/null.
pub(super) fn way_through(jump: &str, config: &Path, log: &Path) -> String {
    let file = |path: &Path| quote(&path.display().to_string());
    let (before, last) = jump.rsplit_once(',').map_or((None, jump), |(before, last)| (Some(before), last));
    let before = before.map_or_else(String::new, |hops| format!(" -J {}", quote(hops)));
    let last = if last.starts_with("ssh://") { last.to_owned() } else { format!("ssh://{last}") };
    let start = format!("ssh -F {} -E {}{before}", file(config), file(log)).replace('%', "%%");
    format!("{start} -W '[%h]:%p' -- {}", quote(&last).replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jump_hosts_write_to_the_same_log() {
        let way = |jump| way_through(jump, Path::new("/tmp/a b/config"), Path::new("/tmp/m%1.log"));
        assert_eq!(
            way("op@gate:2222"),
            "ssh -F '/tmp/a b/config' -E '/tmp/m%%1.log' -W '[%h]:%p' -- ssh://op@gate:2222"
        );
        assert!(way("one,op@two,ssh://three:22").ends_with(" -J 'one,op@two' -W '[%h]:%p' -- ssh://three:22"));
    }
}
