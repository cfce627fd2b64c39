//! The rack that lab tests share.

use crate::run::{binary, stderr, stdout, tool};
use crate::terminal::{Terminal, eventually};
use rackhand::lab::guest_image::{RING_LENGTH, RING_START, Record, history};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// The rack whose name is in `RACKHAND_TEST_RACK`.
pub struct Rack {
    /// Its lab name.
    pub name: String,
    /// Its inventory file.
    pub inventory: String,
}

impl Rack {
    /// The rack the environment names, provisioned; `make test` brings one up and provisions it.
    pub fn provisioned() -> Rack {
        Rack::up()
    }

    /// The rack the environment names, provisioned or not.
    pub fn up() -> Rack {
        let name =
            std::env::var("RACKHAND_TEST_RACK").expect("RACKHAND_TEST_RACK has to name a rack; `make test` makes one");
        let list = run(&mut binary(&["lab", "list", "-o", "json"]));
        let list: Value = serde_json::from_slice(&list.stdout).expect("lab list -o json is JSON");
        let racks = list["racks"].as_array().expect("racks");
        let rack = racks.iter().find(|r| r["name"] == name.as_str()).expect("the rack is up");
        Rack { inventory: rack["inventory"].as_str().unwrap().to_owned(), name }
    }

    /// A command of rackhand on this rack.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = binary(args);
        command.env("RACKHAND_INVENTORY", &self.inventory);
        command
    }

    /// A command of rackhand on this rack, on a terminal.
    pub fn terminal(&self, words: &str) -> Terminal {
        Terminal::run(Path::new("/"), words, &[("RACKHAND_INVENTORY", &self.inventory)])
    }

    /// Hosts that have a QEMU process of the guest.
    pub fn places(&self, name: &str) -> Vec<String> {
        let has = |host: &String| self.ssh(host, "virsh -q list --name").lines().any(|line| line.trim() == name);
        self.hosts().into_iter().filter(has).collect()
    }

    /// Runs a command, whatever its exit code.
    pub fn run(&self, args: &[&str]) -> Output {
        run(&mut self.command(args))
    }

    /// Runs a command that has to succeed.
    pub fn ok(&self, args: &[&str]) -> Output {
        self.exits(0, args)
    }

    /// Runs a command that has to end with this code.
    pub fn exits(&self, code: i32, args: &[&str]) -> Output {
        let output = self.run(args);
        let (out, err) = (stdout(&output), stderr(&output));
        assert_eq!(output.status.code(), Some(code), "rackhand {args:?}\nstdout: {out}\nstderr: {err}");
        output
    }

    /// The JSON a command answers.
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        let output = self.ok(&all);
        serde_json::from_slice(&output.stdout).expect("the answer is JSON")
    }

    /// Runs a command of the lab on this rack.
    pub fn lab(&self, args: &[&str]) -> Output {
        let mut all = vec!["lab"];
        all.extend(args);
        all.extend(["--name", &self.name, "--yes"]);
        self.ok(&all)
    }

    /// Runs a shell command on a host as root, and gives its stdout.
    pub fn ssh(&self, host: &str, script: &str) -> String {
        let args = ["lab", "ssh", "--name", &self.name, host, "--", script];
        stdout(&self.ok(&args))
    }

    /// Its hosts, in the inventory's order.
    pub fn hosts(&self) -> Vec<String> {
        let inventory = self.json(&["inventory", "show"]);
        let hosts = inventory["hosts"].as_array().expect("hosts").iter();
        hosts.map(|h| h["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// The last address that guests of the network `lan` may have; no test gets that far.
    pub fn free_address(&self) -> String {
        let inventory = self.json(&["inventory", "show"]);
        let range = inventory["networks"]["guests"]["lan"]["ranges"][0].as_str().expect("a range").to_owned();
        range.split_once('-').expect("two ends").1.to_owned()
    }

    /// The bridge of this machine that its management network is on; guests of `lan` are too.
    pub fn bridge(&self) -> String {
        let inventory = self.json(&["inventory", "show"]);
        let address = inventory["hosts"][0]["address"].as_str().expect("an address").to_owned();
        let route = tool("ip", &["-j", "route", "get", &address]);
        let route: Value = serde_json::from_str(&route).expect("ip -j is JSON");
        route[0]["dev"].as_str().expect("a device").to_owned()
    }

    /// The image of the guest's first disk, with its pool.
    pub fn disk(&self, name: &str) -> String {
        format!("guests/vm.{}.disk0", self.guest(name)["uuid"].as_str().expect("a UUID"))
    }

    /// Waits until the storage has recovered from what a test did to it.
    pub fn recovers(&self) {
        eventually("the storage to recover", Duration::from_secs(180), || {
            let status = self.ssh("h1", "ceph -s --format json --connect-timeout 5 || true");
            let status: Value = serde_json::from_str(&status).ok()?;
            let pgs = status["pgmap"]["pgs_by_state"].as_array()?;
            let quorum = status["quorum"].as_array()?.len();
            (pgs.iter().all(|s| s["state_name"] == "active+clean") && quorum == self.hosts().len()).then_some(())
        });
    }

    /// A guest as `guest show` sees it.
    pub fn guest(&self, name: &str) -> Value {
        self.json(&["guest", "show", name])
    }

    /// The template `tiny`, imported where it is not there yet.
    pub fn tiny(&self) {
        let images = self.json(&["image", "list"]);
        if !images.to_string().contains("\"tiny\"") {
            let file = self.ok(&["lab", "image", "build", "tiny"]);
            let file = stdout(&file).trim().to_owned();
            self.ok(&["image", "import", "tiny", &file]);
        }
    }

    /// Starts `name` from the template `tiny`; gone again when the value is dropped.
    pub fn tiny_guest(&self, name: &str, more: &[&str]) -> Guest<'_> {
        self.tiny();
        self.guest_of("tiny", name, more)
    }

    /// Starts `name`, a guest as small as tiny, from a template.
    pub fn guest_of(&self, image: &str, name: &str, more: &[&str]) -> Guest<'_> {
        // Left by a run that was killed.
        self.run(&["guest", "delete", name, "--yes"]);
        let mut args = vec!["guest", "create", name, "--image", image, "--memory", "128M", "--cpus", "1"];
        args.extend(["--disk", "1G", "--network", "lan"]);
        args.extend(more);
        self.ok(&args);
        let address = self.guest(name)["addresses"][0].as_str().expect("an address").to_owned();
        Guest { rack: self, name: name.to_owned(), address }
    }
}

fn run(command: &mut Command) -> Output {
    command.output().expect("it starts")
}

/// A `tiny` guest of a test.
pub struct Guest<'a> {
    rack: &'a Rack,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
}

impl Guest<'_> {
    /// What it answers on its TCP port: its boot id and its counter.
    pub fn answer(&self) -> Option<(String, u64)> {
        let address = format!("{}:7777", self.address).parse().unwrap();
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        let (boot, counter) = line.trim().split_once(' ')?;
        Some((boot.to_owned(), counter.parse().ok()?))
    }

    /// Waits for its first answer.
    pub fn answers(&self) -> (String, u64) {
        eventually(&format!("an answer of {} at {}", self.name, self.address), Duration::from_secs(90), || {
            self.answer()
        })
    }

    /// Waits until its counter goes on: it runs, and its disk takes what it writes.
    pub fn counts(&self) -> (String, u64) {
        let (boot, first) = self.answers();
        eventually(&format!("{} to count on after {first}", self.name), Duration::from_secs(30), || {
            self.answer().filter(|(same, now)| *same == boot && *now > first)
        })
    }

    /// Stops it, and reads from its disk what it wrote there: one unbroken history, or the test fails.
    pub fn stopped_history(&self) -> Vec<Record> {
        let image = self.rack.disk(&self.name);
        self.rack.ok(&["guest", "stop", &self.name, "--yes"]);
        let (pool, name) = image.split_once('/').unwrap();
        let script = format!(
            "python3 - <<'X'\nimport rados, rbd, sys\nc = rados.Rados(conffile='/etc/ceph/ceph.conf', name='client.admin')\nc.connect()\ni = rbd.Image(c.open_ioctx('{pool}'), '{name}', read_only=True)\nsys.stdout.write(i.read({RING_START}, {RING_LENGTH}).hex())\nX"
        );
        let hex = self.rack.ssh("h1", &script);
        let digit = |d: u8| u8::try_from((d as char).to_digit(16).unwrap()).unwrap();
        let pairs = hex.trim().as_bytes().chunks_exact(2);
        let ring: Vec<u8> = pairs.map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
        history(&ring).unwrap()
    }

    /// The host it runs on.
    pub fn host(&self) -> String {
        self.rack.guest(&self.name)["host"].as_str().expect("it runs somewhere").to_owned()
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let output = self.rack.run(&["guest", "delete", &self.name, "--yes"]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("cannot delete {}: {}", self.name, stderr(&output));
        }
    }
}

/// An echo request each 10 ms to an address, until it is stopped.
pub struct Pinger {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Pinger {
    /// Starts, and waits for the first answer.
    pub fn start(address: &str) -> Pinger {
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = Command::new("ping")
            .args(["-n", "-D", "-i", "0.01", address])
            .stdin(Stdio::null())
            .stdout(log.reopen().unwrap())
            .stderr(Stdio::null())
            .spawn()
            .expect("ping starts");
        let pinger = Pinger { child, log };
        eventually("the first answer to a ping", Duration::from_secs(60), || pinger.times().first().copied());
        pinger
    }

    /// When each answer came, in seconds.
    fn times(&self) -> Vec<f64> {
        let text = std::fs::read_to_string(self.log.path()).unwrap();
        let answer = |l: &str| l.contains("bytes from").then(|| l[1..].split(']').next()?.parse().ok()).flatten();
        text.lines().filter_map(answer).collect()
    }

    /// The longest time without an answer up to the next answer: one that lasts still counts whole.
    pub fn longest_gap(&self) -> Duration {
        let so_far = self.times().len();
        let times = eventually("one more answer to a ping", Duration::from_secs(60), || {
            Some(self.times()).filter(|times| times.len() > so_far)
        });
        let longest = times.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
        Duration::from_secs_f64(longest)
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a line to stderr whether or not the test runner captures output.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
