//! Hosts as operators reach them: a login that needs sudo, work that outlives its connection, host keys, BMCs. Any rack
//! will do, provisioned or not.

use crate::rack::Rack;
use crate::run::{binary, stderr, stdout};
use crate::terminal::eventually;
use rackhand::inventory::{Inventory, load};
use rackhand::ssh::{Exec, Fleet, Job, JobState, Remote, RemoteError};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

const SHORT: Duration = Duration::from_secs(5);
/// More than ssh needs to notice that nobody answers any more, and the bridge to carry packets again.
const LONG: Duration = Duration::from_secs(60);

/// A changed copy of the rack's inventory in a directory of its own.
struct Copy {
    dir: tempfile::TempDir,
    file: PathBuf,
}

impl Copy {
    /// The copy's own known_hosts is empty unless `known`.
    fn of(rack: &Rack, known: bool, change: impl Fn(String) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = Path::new(&rack.inventory).parent().unwrap();
        let mut text = fs::read_to_string(&rack.inventory).unwrap();
        for file in ["id_ed25519", "bmc-password"] {
            text = text.replace(&format!(": {file}\n"), &format!(": {}\n", base.join(file).display()));
        }
        if known {
            fs::copy(base.join("known_hosts"), dir.path().join("known_hosts")).unwrap();
        }
        let file = dir.path().join("inventory.yaml");
        fs::write(&file, change(text)).unwrap();
        Copy { dir, file }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = binary(args);
        command.env("RACKHAND_INVENTORY", &self.file);
        command
    }

    fn exits(&self, code: i32, args: &[&str]) -> (String, String) {
        said(code, &self.command(args).output().unwrap())
    }

    fn known_hosts(&self) -> PathBuf {
        self.dir.path().join("known_hosts")
    }

    fn inventory(&self) -> Inventory {
        load(&self.file).unwrap()
    }
}

/// stdout and stderr of a command that ended with this code.
fn said(code: i32, output: &Output) -> (String, String) {
    let (out, err) = (stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    (out, err)
}

fn h1(inventory: &Inventory) -> Arc<dyn Remote> {
    Fleet::over_ssh(inventory, SHORT).unwrap().get("h1").unwrap()
}

fn address(rack: &Rack, host: &str) -> String {
    let inventory = load(Path::new(&rack.inventory)).unwrap();
    inventory.host(host).unwrap().address.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_not_root_works_through_sudo_and_says_when_it_may_not() {
    let rack = Rack::up();
    rack.ssh("h1", "id op >/dev/null 2>&1 || useradd --create-home --shell /bin/bash op");
    rack.ssh("h1", "cp -r /root/.ssh /home/op/ && chown -R op: /home/op/.ssh");
    let copy = Copy::of(&rack, true, |text| text.replace("user: root\n  identity", "user: op\n  identity"));
    let host = h1(&copy.inventory());

    rack.ssh("h1", "rm -f /etc/sudoers.d/op");
    let error = host.run(Exec::argv(["id", "-u"])).await.unwrap_err();
    assert!(matches!(&error, RemoteError::Sudo { reason, .. } if reason.contains("password is required")), "{error}");
    assert!(error.nothing_ran());
    let (_, err) = copy.exits(1, &["facts", "h1"]);
    assert!(err.contains("`sudo -n` refused") && err.contains("NOPASSWD"), "{err}");

    rack.ssh("h1", "echo 'op ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/op && chmod 440 /etc/sudoers.d/op");
    let id = async |exec: Exec| host.run(exec).await.unwrap().text().trim().to_owned();
    assert_eq!(id(Exec::argv(["id", "-u"])).await, "0");
    assert_ne!(id(Exec::argv(["id", "-u"]).as_login()).await, "0");
    // What only root may read, by a script on stdin and under the remote deadline.
    assert_eq!(id(Exec::script("head -n 1 /etc/shadow | cut -d: -f1", Vec::<String>::new())).await, "root");
    let error = host.run(Exec::argv(["sleep", "86398.5"]).deadline(Duration::from_millis(500))).await.unwrap_err();
    assert!(matches!(error, RemoteError::TimedOut { .. }), "{error}");
    let left = "pgrep -f 'sleep 8639[8].5' || echo none";
    eventually("root's process is gone too", LONG, || (rack.ssh("h1", left).trim() == "none").then_some(()));
    copy.exits(0, &["facts", "h1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_job_survives_the_loss_of_its_connection_and_runs_once() {
    let rack = Rack::up();
    let host = h1(&load(Path::new(&rack.inventory)).unwrap());
    rack.ssh("h1", "rm -f /run/job-test.*");
    let script =
        "echo begun | tee -a /run/job-test.log\nuntil [ -e /run/job-test.go ]; do sleep 0.1; done\necho over\n";
    let job = Job::new("job-test", script, Duration::from_secs(300));
    job.forget(host.as_ref()).await.unwrap();
    assert_eq!(job.start(host.as_ref()).await.unwrap(), JobState::Running);

    rack.lab(&["partition", "h1", "--from", "all"]);
    let error = job.look(host.as_ref()).await.unwrap_err();
    assert!(error.unknown() || error.nothing_ran(), "{error}");
    rack.lab(&["heal", "h1"]);

    eventually("the host answers again", LONG, || rack.run(&["facts", "h1"]).status.success().then_some(()));
    assert_eq!(job.look(host.as_ref()).await.unwrap().state, JobState::Running);
    // Another run of the same command attaches to it.
    assert_eq!(job.start(host.as_ref()).await.unwrap(), JobState::Running);
    rack.ssh("h1", "touch /run/job-test.go");
    assert_eq!(job.run(host.as_ref()).await.unwrap(), "begun\nover\n");
    assert_eq!(rack.ssh("h1", "cat /run/job-test.log"), "begun\n");
    assert_eq!(job.look(host.as_ref()).await.unwrap().state, JobState::Absent);
}

#[test]
fn host_add_records_the_key_and_refuses_a_changed_one() {
    let rack = Rack::up();
    let copy = Copy::of(&rack, false, |text| text);
    let at = address(&rack, "h1");
    let recorded = || fs::read_to_string(copy.known_hosts()).unwrap_or_default();
    let (_, err) = copy.exits(1, &["facts", "h1"]);
    assert!(err.contains("no key of") && err.contains(&format!("rackhand host add h1 {at}")), "{err}");

    // Nobody to ask: the key is shown and not recorded; nor is it on a dry run.
    let print = rack.ssh("h1", "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub");
    let print = print.split_whitespace().nth(1).unwrap().to_owned();
    let (_, err) = copy.exits(5, &["host", "add", "h1", &at]);
    assert!(err.contains(&print), "{err}");
    copy.exits(0, &["host", "add", "h1", &at, "--dry-run"]);
    assert_eq!(recorded(), "");

    let add = |name: &str| -> Value {
        let (out, _) = copy.exits(0, &["host", "add", name, &at, "--yes", "-o", "json"]);
        serde_json::from_str(&out).unwrap()
    };
    let added = add("h1");
    assert!(added["fingerprints"].to_string().contains(&print), "{added}");
    assert_eq!(added["known"], false);
    assert_eq!(added["snippet"], "");
    assert!(recorded().starts_with(&at));
    copy.exits(0, &["facts", "h1"]);
    // As a host the inventory does not have yet: looked at, and said what to write down.
    let added = add("h9");
    assert_eq!(added["known"], true);
    let storage = load(&copy.file).unwrap().host("h1").unwrap().storage_address.to_string();
    let snippet = added["snippet"].as_str().unwrap();
    assert!(snippet.contains("- name: h9") && snippet.contains(&format!("storage_address: {storage}")), "{snippet}");

    // Another machine behind the address: refused, with place and cure, until the old key is removed by hand.
    let theirs = rack.ssh("h2", "cat /etc/ssh/ssh_host_ed25519_key.pub");
    fs::write(copy.known_hosts(), format!("{at} {theirs}")).unwrap();
    let file = copy.known_hosts().display().to_string();
    let cure = format!("ssh-keygen -R '{at}' -f '{file}'");
    for (code, args) in [(5, vec!["host", "add", "h1", &at, "--yes"]), (1, vec!["facts", "h1"])] {
        let (_, err) = copy.exits(code, &args);
        assert!(err.contains("has changed") && err.contains(&print) && err.contains(&cure), "{err}");
    }
    assert_eq!(recorded(), format!("{at} {theirs}"));
    let removed = Command::new("ssh-keygen").args(["-R", &at, "-f", &file]).output().unwrap();
    assert!(removed.status.success());
    add("h1");
    copy.exits(0, &["facts", "h1"]);
}

/// What `check` says about BMCs: `HOST CHECK` for each finding, and its words.
fn bmc_findings(copy: &Copy, change: impl Fn(&mut Command)) -> Vec<(String, String)> {
    let mut command = copy.command(&["check", "-o", "json"]);
    change(&mut command);
    let output = command.output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |f: &Value, key: &str| f[key].as_str().unwrap().to_owned();
    let about_bmcs = found["findings"].as_array().unwrap().iter().filter(|f| text(f, "check").starts_with("bmc"));
    about_bmcs.map(|f| (format!("{} {}", text(f, "host"), text(f, "check")), text(f, "what"))).collect()
}

fn names(findings: &[(String, String)]) -> Vec<&str> {
    findings.iter().map(|(name, _)| name.as_str()).collect()
}

const KINDS: [&str; 2] = ["redfish", "ipmi"];

#[test]
fn a_wrong_bmc_password_is_said_wherever_it_comes_from_and_never_shown() {
    let rack = Rack::up();
    let base = Path::new(&rack.inventory).parent().unwrap();
    let right = fs::read_to_string(base.join("bmc-password")).unwrap().trim().to_owned();
    let wrong = "not-the-password-7";
    for kind in KINDS {
        let with = |source: &str| {
            let file = format!("file: {}", base.join("bmc-password").display());
            Copy::of(&rack, true, |text| text.replace("kind: redfish", &format!("kind: {kind}")).replace(&file, source))
        };
        let env = with("env: RACKHAND_TEST_BMC");
        let set = |secret: &str| {
            bmc_findings(&env, |command| {
                command.env("RACKHAND_TEST_BMC", secret);
            })
        };
        assert_eq!(set(&right), [], "{kind}");
        let hosts = load(&env.file).unwrap().hosts.len();
        let refused = set(wrong);
        assert_eq!(refused.len(), hosts, "{kind}: {refused:?}");
        for (name, what) in refused {
            assert!(
                name.ends_with(" bmc-login") && what.contains("wrong user name or password"),
                "{kind}: {name} {what}"
            );
        }
        let unset = bmc_findings(&env, |command| {
            command.env_remove("RACKHAND_TEST_BMC");
        });
        assert!(
            unset.iter().all(|(name, what)| name.ends_with("bmc-login") && what.contains("is not set")),
            "{unset:?}"
        );

        let command = |secret: &str| with(&format!("command: [echo, {secret}]"));
        assert_eq!(bmc_findings(&command(&right), |_| {}), [], "{kind}");
        assert_eq!(bmc_findings(&command(wrong), |_| {}).len(), hosts, "{kind}");

        let secret = tempfile::NamedTempFile::new().unwrap();
        let file = with(&format!("file: {}", secret.path().display()));
        for (text, expected) in [(right.as_str(), 0), (wrong, hosts)] {
            fs::write(secret.path(), text).unwrap();
            assert_eq!(bmc_findings(&file, |_| {}).len(), expected, "{kind}");
        }
        fs::set_permissions(secret.path(), fs::Permissions::from_mode(0o644)).unwrap();
        let open = bmc_findings(&file, |_| {});
        assert!(open.iter().all(|(_, what)| what.contains("can be read by others")), "{open:?}");

        let output = env.command(&["check", "-vv"]).env("RACKHAND_TEST_BMC", wrong).output().unwrap();
        let (out, err) = said(4, &output);
        assert!(!out.contains(wrong) && !err.contains(wrong), "{kind}: the password is shown");
    }
}

#[test]
fn a_bmc_that_belongs_to_another_host_is_found_out() {
    let rack = Rack::up();
    let inventory = load(Path::new(&rack.inventory)).unwrap();
    let bmc = |host: &str| inventory.host(host).unwrap().bmc.as_ref().unwrap().address.to_string();
    let (one, two) = (bmc("h1"), bmc("h2"));
    for kind in KINDS {
        let swapped = Copy::of(&rack, true, |text| {
            let text = text.replace("kind: redfish", &format!("kind: {kind}"));
            let (one, two) = (format!("address: {one}\n"), format!("address: {two}\n"));
            text.replace(&one, "address: FIRST\n").replace(&two, &one).replace("address: FIRST\n", &two)
        });
        let found = bmc_findings(&swapped, |_| {});
        assert_eq!(names(&found), ["h1 bmc-owner", "h2 bmc-owner"], "{kind}: {found:?}");
        let serial = |host: &str| rack.json(&["facts", host])["hosts"][0]["facts"]["machine"]["serial"].clone();
        assert!(found[0].1.contains(serial("h2").as_str().unwrap()), "{kind}: {found:?}");
        swapped.exits(4, &["check"]);
    }
}

#[test]
fn a_bmc_is_asked_through_a_peer_where_this_machine_cannot() {
    let rack = Rack::up();
    rack.ssh("h2", "apt-get update -q && apt-get install -q -y --no-install-recommends curl ipmitool");
    // This machine as one without curl and ipmitool.
    let tools = tempfile::tempdir().unwrap();
    for tool in ["sh", "ssh", "ssh-keygen", "timeout"] {
        let place = Command::new("sh").args(["-c", "command -v \"$0\"", tool]).output().unwrap();
        let place = String::from_utf8(place.stdout).unwrap();
        std::os::unix::fs::symlink(place.trim(), tools.path().join(tool)).unwrap();
    }
    for kind in KINDS {
        let file = format!("file: {}", Path::new(&rack.inventory).with_file_name("bmc-password").display());
        let copy = Copy::of(&rack, true, |text| {
            text.replace("kind: redfish", &format!("kind: {kind}")).replace(&file, "env: RACKHAND_TEST_BMC")
        });
        let asked = |secret: &str| {
            let found = bmc_findings(&copy, |command| {
                command.env("PATH", tools.path()).env("RACKHAND_TEST_BMC", secret);
            });
            found.into_iter().find(|(name, _)| name.starts_with("h1 "))
        };
        let right = fs::read_to_string(Path::new(&rack.inventory).with_file_name("bmc-password")).unwrap();
        assert_eq!(asked(right.trim()), None, "{kind}: asked from h2");
        let (name, what) = asked("wrong").unwrap();
        assert!(name == "h1 bmc-login" && what.contains("asked from h"), "{kind}: {name} {what}");
    }
}

#[test]
fn a_disk_that_only_looks_empty_is_refused_by_check_and_provision_alike() {
    let rack = Rack::up();
    let disk = load(Path::new(&rack.inventory)).unwrap().host("h1").unwrap().osds[0].display().to_string();
    let empty = format!("cmp -s -n 1048576 {disk} /dev/zero && test -z \"$(wipefs -n {disk})\" && echo yes || true");
    if rack.ssh("h1", &empty).trim() != "yes" {
        // A provisioned rack: its disk is not for this test.
        return;
    }
    // Data without a signature in the first MiB; the copy that a newer Ceph keeps of an OSD's label at 10 GiB.
    let label = "printf 'bluestore block device\\n5a2f6f7e-2c1b-4f5e-9c39-0d4f0a3c7b11\\n'";
    for (source, block, found_by_check, found_by_provision) in [
        ("head -c 4096 /dev/urandom", 8, "unknown-data", "first MiB"),
        (label, 10 << 18, "label-at-10GiB", "label at 10 GiB"),
    ] {
        let at = format!("of={disk} bs=4096 seek={block} count=1 conv=notrunc,fsync status=none");
        rack.ssh("h1", &format!("{source} | dd {at}"));
        let check = rack.run(&["check", "-o", "json"]);
        let provision = rack.run(&["provision", "--dry-run"]);
        rack.ssh("h1", &format!("dd if=/dev/zero {at}"));
        let (out, _) = said(4, &check);
        let found: Value = serde_json::from_str(&out).unwrap();
        let of_disk = |f: &&Value| f["host"] == "h1" && f["check"] == "disk-used";
        let finding = found["findings"].as_array().unwrap().iter().find(of_disk).unwrap();
        assert!(finding["what"].to_string().contains(found_by_check), "{finding}");
        let (_, err) = said(5, &provision);
        assert!(err.contains(&format!("h1 {disk}")) && err.contains(found_by_provision), "{err}");
    }
    assert_eq!(rack.ssh("h1", &empty).trim(), "yes");
}
