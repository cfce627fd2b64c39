//! Guests from the inside and at their buttons, on a real rack: console, agent, reboot, power.

use crate::rack::Rack;
use crate::run::stderr;
use crate::terminal::eventually;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

const BOOT: Duration = Duration::from_secs(120);

#[test]
fn the_console_is_the_guests_and_a_key_leaves_it() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("con", &[]);
    guest.answers();
    let mut terminal = rack.terminal("guest console con");
    eventually("the way out is told", BOOT, || terminal.shows("Escape character is ^]").then_some(()));
    // What is typed shows as well, so the answer is something that was not typed.
    eventually("an answer of the guest's shell", BOOT, || {
        terminal.types("echo answer-$((6*7)) on $(cat /proc/sys/kernel/hostname)\n");
        terminal.shows("answer-42 on con").then_some(())
    });
    // It counts only as the first key that is read at once; what was typed before may still be on its way.
    let status = eventually("the console ends", Duration::from_secs(20), || {
        terminal.types("\x1d");
        terminal.ended()
    });
    assert!(status.success(), "{status}");
    assert!(guest.answer().is_some(), "the guest runs on");
    // Not for a guest that does not run.
    rack.ok(&["guest", "stop", "con", "--force"]);
    assert!(stderr(&rack.exits(1, &["guest", "console", "con"])).contains("guest con does not run"));
}

#[test]
fn a_command_for_a_guest_without_an_agent_says_what_is_missing() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("agentless", &[]);
    guest.answers();
    let dry = rack.ok(&["guest", "exec", "agentless", "--dry-run", "--", "uname", "-a"]);
    assert_eq!(String::from_utf8_lossy(&dry.stdout), "would run `uname -a` in: agentless\n");
    let text = stderr(&rack.exits(1, &["guest", "exec", "agentless", "--", "uname", "-a"]));
    assert!(text.contains("agentless") && text.contains("qemu-guest-agent"), "{text}");
    rack.ok(&["guest", "stop", "agentless", "--force"]);
    let text = stderr(&rack.exits(1, &["guest", "exec", "agentless", "--", "uname", "-a"]));
    assert!(text.contains("guest agentless does not run"), "{text}");
}

#[test]
fn a_reboot_is_another_boot_of_the_same_guest_in_the_same_place() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("again", &[]);
    let (mut boot, mut counter) = guest.answers();
    let host = guest.host();
    for how in [[].as_slice(), &["--force"]] {
        rack.ok(&[["guest", "reboot", "again"].as_slice(), how].concat());
        let (next, count) = eventually("another boot", BOOT, || guest.answer().filter(|(next, _)| *next != boot));
        // What the disk has acknowledged is never lost.
        assert!(count >= counter, "{count} after {counter}");
        (boot, counter) = (next, count);
        assert_eq!((guest.host(), &rack.guest("again")["state"]), (host.clone(), &"running".into()));
    }
    rack.ok(&["guest", "stop", "again", "--force"]);
    assert!(stderr(&rack.exits(1, &["guest", "reboot", "again"])).contains("guest again does not run"));
}

#[test]
fn the_power_button_is_heard_even_by_a_guest_that_has_only_begun_to_boot() {
    let rack = Rack::provisioned();
    let _guest = rack.tiny_guest("sleepy", &[]);
    // Its firmware does not hear the button: pressed once, it would run on.
    rack.ok(&["guest", "stop", "sleepy"]);
    assert_eq!(rack.guest("sleepy")["state"], "stopped");
    // A guest that does not go down in time runs on, and says how to end it.
    rack.ok(&["guest", "start", "sleepy"]);
    let text = stderr(&rack.exits(1, &["guest", "stop", "sleepy", "--timeout", "1ms"]));
    assert!(text.contains("still runs on") && text.contains("--force"), "{text}");
    rack.ok(&["guest", "stop", "sleepy", "--force"]);
    assert_eq!(rack.guest("sleepy")["state"], "stopped");
    let same = rack.ok(&["guest", "stop", "sleepy", "--events", "plain"]);
    assert!(stderr(&same).contains("was down"), "{}", stderr(&same));
}

/// Waits for a frame in which a switch learns where a guest is now: RARP from its hardware address.
const LISTEN: &str = r#"
import select, socket, sys, time
bridge, mac = sys.argv[1], bytes.fromhex(sys.argv[2].replace(":", ""))
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x8035))
s.bind((bridge, 0x8035))
print("listening", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end and select.select([s], [], [], end - time.monotonic())[0]:
    if s.recv(2048)[6:12] == mac:
        print("announced", flush=True)
        break
"#;

#[test]
fn a_guest_started_on_another_host_is_announced_to_the_network() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("roamer", &[]);
    guest.answers();
    let (from, mac) = (guest.host(), rack.guest("roamer")["nics"][0]["mac"].as_str().unwrap().to_owned());
    let to = rack.hosts().into_iter().find(|host| *host != from).unwrap();
    rack.ok(&["guest", "stop", "roamer", "--force"]);
    let mut ears = Command::new("python3")
        .args(["-c", LISTEN, &rack.bridge(), &mac])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(ears.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("listening"));
    rack.ok(&["guest", "start", "roamer", "--host", &to]);
    assert_eq!(lines.next().as_deref(), Some("announced"));
    ears.wait().unwrap();
    guest.answers();
    assert_eq!(guest.host(), to);
}
