//! Images from everywhere they come from, and what is no image, on a real rack.

use crate::rack::Rack;
use crate::run::stderr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Imported images of these names, removed in the end.
struct Names<'a>(&'a Rack, &'static [&'static str]);

impl<'a> Names<'a> {
    fn of(rack: &'a Rack, names: &'static [&'static str]) -> Self {
        let names = Names(rack, names);
        names.clear();
        names
    }

    fn clear(&self) {
        for name in self.1 {
            self.0.run(&["image", "remove", name, "--yes"]);
        }
    }
}

impl Drop for Names<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A web server on this machine.
struct Web {
    child: Child,
    url: String,
}

impl Web {
    fn of(directory: &Path) -> Web {
        let mut child = Command::new("python3")
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.split_whitespace().skip_while(|w| *w != "port").nth(1).unwrap().parse().unwrap();
        Web { child, url: format!("http://127.0.0.1:{port}") }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tiny_file(rack: &Rack) -> PathBuf {
    let built = rack.ok(&["lab", "image", "build", "tiny"]);
    PathBuf::from(String::from_utf8_lossy(&built.stdout).trim())
}

fn sha256(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap().to_owned()
}

/// The tiny image as a compressed qcow2 file.
fn qcow2(rack: &Rack, directory: &Path) -> PathBuf {
    let file = directory.join("tiny.qcow2");
    let made = Command::new("qemu-img")
        .args(["convert", "-q", "-c", "-f", "raw", "-O", "qcow2"])
        .args([&tiny_file(rack), &file])
        .status()
        .unwrap();
    assert!(made.success());
    file
}

#[test]
fn an_image_comes_as_qcow2_from_the_web_or_raw_on_stdin_and_boots() {
    let rack = Rack::provisioned();
    let _names = Names::of(&rack, &["web", "piped"]);
    let directory = tempfile::tempdir().unwrap();
    let file = qcow2(&rack, directory.path());
    let (web, sum) = (Web::of(directory.path()), sha256(&file));
    let url = format!("{}/tiny.qcow2", web.url);
    // What lets the operator in there is not for everybody to see.
    let secret = format!("{}?token=s3cret", url.replace("://", "://me:s3cret@"));
    let imported = rack.ok(&["image", "import", "web", &secret, "--sha256", &sum, "-o", "json", "-vv"]);
    let shown: serde_json::Value = serde_json::from_slice(&imported.stdout).unwrap();
    assert!(shown["schema"].is_string(), "{shown}");
    assert!(!shown.to_string().contains("s3cret") && !stderr(&imported).contains("s3cret"), "{}", stderr(&imported));
    let images = rack.json(&["image", "list"]);
    let image = images["images"].as_array().unwrap().iter().find(|i| i["name"] == "web").unwrap();
    assert_eq!((&image["versions"][0]["sha256"], &image["versions"][0]["source"]), (&sum.into(), &url.into()));
    // The disk is the raw one's, not the file's.
    let raw = std::fs::metadata(tiny_file(&rack)).unwrap().len();
    let host = rack.hosts().remove(0);
    let disk = image["versions"][0]["image"].as_str().unwrap();
    assert!(rack.ssh(&host, &format!("rbd info --format json guests/{disk}")).contains(&format!("\"size\":{raw}")));
    let guest = rack.guest_of("web", "fromweb", &[]);
    guest.answers();
    drop(guest);
    // The same bytes from a pipe.
    let raw = File::open(tiny_file(&rack)).unwrap();
    let piped = rack.command(&["image", "import", "piped", "-"]).stdin(raw).output().unwrap();
    assert!(piped.status.success(), "{}", stderr(&piped));
    let images = rack.json(&["image", "list"]);
    let images = images["images"].as_array().unwrap().iter().filter(|i| i["name"] == "web" || i["name"] == "piped");
    let images: Vec<&str> = images.map(|i| i["versions"][0]["image"].as_str().unwrap()).collect();
    let export = |image: &&str| format!("rbd export --no-progress guests/{image}@base - | sha256sum;");
    let sums = rack.ssh(&host, &images.iter().map(export).collect::<String>());
    let sums: Vec<&str> = sums.lines().collect();
    assert_eq!(sums[0], sums[1]);
}

/// The tiny image in another format, made by a line of shell that has `$raw`, `$out` and the current directory.
fn made_by(rack: &Rack, directory: &Path, name: &str, line: &str) -> PathBuf {
    let file = directory.join(name);
    let made = Command::new("sh")
        .args(["-ec", line])
        .current_dir(directory)
        .env("raw", tiny_file(rack))
        .env("out", &file)
        .status()
        .unwrap();
    assert!(made.success(), "{line}");
    file
}

#[test]
fn every_format_becomes_the_same_disk_and_an_unreadable_object_hides_none() {
    let rack = Rack::provisioned();
    let _names = Names::of(&rack, &["vmdk", "vdi", "vhd", "vhdx", "qed", "ova", "gz", "xz", "odd", "broken"]);
    let directory = tempfile::tempdir().unwrap();
    let to = |format: &str| format!("qemu-img convert -q -f raw -O {format} \"$raw\" \"$out\"");
    let stream = "qemu-img convert -q -f raw -O vmdk -o subformat=streamOptimized \"$raw\"";
    let table = [
        ("vmdk", format!("{stream} \"$out\"")),
        ("vdi", to("vdi")),
        ("vhd", to("vpc")),
        ("vhdx", to("vhdx")),
        ("qed", to("qed")),
        ("ova", format!("{stream} disk1.vmdk; echo '<Envelope/>' >a.ovf; tar -cf \"$out\" a.ovf disk1.vmdk")),
        ("gz", "gzip -c <\"$raw\" >\"$out\"".to_owned()),
        // A number of sectors that is not one of any larger unit.
        ("odd", "cp \"$raw\" \"$out\"; head -c 512 /dev/zero >>\"$out\"".to_owned()),
    ];
    for (name, line) in &table {
        let file = made_by(&rack, directory.path(), name, line);
        rack.ok(&["image", "import", name, file.to_str().unwrap()]);
    }
    // The lab's hosts have no xz.
    let xz = made_by(&rack, directory.path(), "xz", "xz -1 -c <\"$raw\" >\"$out\"");
    let refused = stderr(&rack.exits(1, &["image", "import", "xz", xz.to_str().unwrap()]));
    assert!(refused.contains("no mon host can convert it: h1 has no xz"), "{refused}");
    let host = rack.hosts().remove(0);
    rack.ssh(&host, "printf '{' | rados -p .rackhand put image.broken -");
    let listed = rack.ok(&["image", "list", "-o", "json"]);
    assert!(stderr(&listed).contains("image.broken"), "{}", stderr(&listed));
    let images: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let (length, sum) = (std::fs::metadata(tiny_file(&rack)).unwrap().len(), sha256(&tiny_file(&rack)));
    for (name, _) in &table {
        let image = images["images"].as_array().unwrap().iter().find(|i| i["name"] == *name).expect(name);
        let disk = image["versions"][0]["image"].as_str().unwrap();
        let line = format!("rbd export --no-progress guests/{disk}@base - | head -c {length} | sha256sum");
        assert_eq!(rack.ssh(&host, &line).split_whitespace().next().unwrap(), sum, "{name}");
    }
    assert!(rack.run(&["doctor"]).stdout.windows(12).any(|w| w == b"image.broken"));
    rack.ok(&["image", "remove", "broken", "--yes"]);
    assert!(!stderr(&rack.ok(&["image", "list"])).contains("broken"));
}

#[test]
fn what_is_no_image_or_not_the_one_meant_is_refused_and_leaves_nothing() {
    let rack = Rack::provisioned();
    let _names = Names::of(&rack, &["bad"]);
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let web = Web::of(directory.path());
    let file = qcow2(&rack, directory.path());
    std::fs::write(at("notes.txt"), "no image at all\n".repeat(100)).unwrap();
    std::fs::write(at("half.qcow2"), &std::fs::read(&file).unwrap()[..200_000]).unwrap();
    let refused = |code: i32, args: &[&str]| stderr(&rack.exits(code, &[&["image", "import", "bad"], args].concat()));
    // The file is sent before its sum is known; nothing of it stays.
    let wrong = "0".repeat(64);
    let text = refused(1, &[file.to_str().unwrap(), "--sha256", &wrong]);
    assert!(text.contains("its SHA-256 is") && text.contains("not the one given"), "{text}");
    refused(2, &[file.to_str().unwrap(), "--sha256", "abc"]);
    let text = refused(2, &[&at("notes.txt")]);
    assert!(text.contains("it is text"), "{text}");
    let text = refused(2, &[&at("nowhere.qcow2")]);
    assert!(text.contains("nowhere.qcow2"), "{text}");
    // A page that is not there, and a file that looks like an image until it is read.
    let text = refused(1, &[&format!("{}/nothing.qcow2?token=s3cret", web.url)]);
    assert!(text.contains("cannot fetch") && text.contains("404") && !text.contains("s3cret"), "{text}");
    let text = refused(1, &[&format!("{}/half.qcow2", web.url)]);
    assert!(text.contains("the file is damaged"), "{text}");
    assert!(!rack.json(&["image", "list"]).to_string().contains("\"bad\""));
    let host = rack.hosts().remove(0);
    let left = rack.ssh(&host, "rbd ls guests; ls /var/tmp");
    assert!(!left.contains("import.") && !left.contains("image.bad") && !left.contains("rackhand"), "{left}");
}
