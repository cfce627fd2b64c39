//! Changing requests of a guest, guarded by its floor: the host compares the claim's generation with the highest one it
//! has seen, raises that, and hands the request to libvirt, all in one step under a lock.
//!
//! libvirt itself knows no such condition, so the request is a small script over SSH that calls virsh. Whatever is asked
//! with an older generation is known not to have run ([`VirtError::Stale`]), however late it arrives.

use super::token::Token;
use super::types::MigrateParams;
use super::{VirtError, error};
use crate::ssh::{Exec, Output, Remote, RemoteError};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const SCRIPT: &str = include_str!("guarded.sh");
/// How long a request waits for another one of the same guest on the same host.
const TURN: Duration = Duration::from_secs(10);
/// How long raising a floor waits for a request that libvirt has not taken on yet. libvirt itself waits 30 s for its turn
/// on a guest before it gives a request up.
const REVOKE: Duration = Duration::from_secs(35);
/// For what starts or ends a process: QEMU opens its disks first, which waits for the storage.
const CHANGE: Duration = Duration::from_secs(60);
/// How long the end of a move may take to be written down on its host after the job is over.
const WRITTEN: Duration = Duration::from_secs(3);

/// What is asked of a host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verb {
    Create,
    Resume,
    Destroy,
    Suspend,
    Migrate,
    Raise,
    Outcome,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Resume => "resume",
            Verb::Destroy => "destroy",
            Verb::Suspend => "suspend",
            Verb::Migrate => "migrate",
            Verb::Raise => "raise",
            Verb::Outcome => "outcome",
        }
    }

    /// The same in words, as errors say it.
    pub(super) fn call(self) -> &'static str {
        match self {
            Verb::Create => "start the guest",
            Verb::Resume => "resume the guest",
            Verb::Destroy => "end the guest",
            Verb::Suspend => "pause the guest",
            Verb::Migrate => "move the guest",
            Verb::Raise => "revoke older requests",
            Verb::Outcome => "ask for the end of the move",
        }
    }

    /// How long it waits on the host before it begins.
    fn turn(self) -> Duration {
        match self {
            Verb::Raise => REVOKE,
            Verb::Outcome => WRITTEN,
            _ => TURN,
        }
    }

    fn deadline(self) -> Duration {
        match self {
            Verb::Raise | Verb::Outcome => self.turn() + Duration::from_secs(10),
            _ => self.turn() + CHANGE,
        }
    }
}

/// What a host answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was carried out.
    Done,
    /// libvirt has taken the move on, which goes on by itself.
    UnderWay,
}

/// A request to one host.
pub(super) struct Request<'a> {
    pub(super) remote: &'a Arc<dyn Remote>,
    pub(super) verb: Verb,
    pub(super) uuid: Uuid,
    pub(super) token: Token,
}

impl Request<'_> {
    /// Sends it; `arguments` belong to the verb, `xml` to the definition of a guest that is made.
    pub(super) async fn send(self, arguments: Vec<String>, xml: Option<&str>) -> Result<Answer, VirtError> {
        let (host, call) = (self.remote.name().to_owned(), self.verb.call());
        let unreachable = |e: RemoteError| VirtError::Unreachable { host: host.clone(), reason: e.to_string() };
        // Connecting takes longest: what is too late after that is not sent.
        self.remote.connect().await.map_err(unreachable)?;
        if self.token.is_late() {
            return Err(VirtError::Late { host, call });
        }
        let mut words = vec![
            self.verb.word().to_owned(),
            self.uuid.to_string(),
            self.token.generation.to_string(),
            self.verb.turn().as_secs().to_string(),
        ];
        words.extend(arguments);
        let script = match xml {
            Some(xml) => format!("xml='{}'\n{SCRIPT}", xml.replace('\'', r"'\''")),
            None => SCRIPT.to_owned(),
        };
        let deadline = self.verb.deadline();
        match self.remote.run(Exec::script(script, words).deadline(deadline)).await {
            Ok(output) => answer(&host, call, &output),
            Err(error) if error.nothing_ran() => Err(unreachable(error)),
            Err(RemoteError::TimedOut { after, .. }) => Err(VirtError::TimedOut { host, call, after }),
            Err(error) => Err(VirtError::Lost { host, call, message: error.to_string() }),
        }
    }
}

/// What virsh takes for a move.
pub(super) fn migrate_words(uuid: Uuid, params: &MigrateParams) -> Vec<String> {
    let mut words: Vec<String> = ["--live", "--p2p", "--abort-on-error"].map(str::to_owned).into();
    if params.auto_converge {
        words.push("--auto-converge".to_owned());
    }
    if params.tls {
        words.push("--tls".to_owned());
    }
    if let Some(n) = params.parallel {
        words.extend(["--parallel".to_owned(), "--parallel-connections".to_owned(), n.to_string()]);
    }
    if let Some(limit) = params.bandwidth {
        words.extend(["--bandwidth".to_owned(), limit.to_string()]);
    }
    if let Some(data) = &params.data {
        words.extend(["--migrateuri".to_owned(), data.clone()]);
    }
    words.extend([uuid.to_string(), params.destination.clone()]);
    words
}

/// Reads the script's answer.
fn answer(host: &str, call: &'static str, output: &Output) -> Result<Answer, VirtError> {
    let (host, text) = (host.to_owned(), output.text());
    let (first, said) = text.split_once('\n').unwrap_or((&text, ""));
    match first.split_once(' ').unwrap_or((first, "")) {
        ("done", _) => Ok(Answer::Done),
        ("under-way", _) => Ok(Answer::UnderWay),
        ("older", floor) => Err(VirtError::Stale { host, call, floor: floor.trim().parse().unwrap_or_default() }),
        ("held", _) => Err(VirtError::Held { host, call }),
        // The script ends with it before it asks anything of libvirt.
        ("broken", _) => Err(VirtError::Unreachable { host, reason: said.trim().to_owned() }),
        ("failed", _) => Err(error::of_virsh(&host, call, said)),
        // It was killed, or something else answered: nobody knows how far it got.
        _ => Err(VirtError::Lost { host, call, message: format!("exit {}: {}", output.status, output.tail()) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::process::{Command, Stdio};

    /// A host of a directory: its virsh notes what it is asked, and obeys the file `behave`.
    struct Stub(tempfile::TempDir);

    const UUID: &str = "6f2c0b8e-3f9d-4a43-9f5e-0f9f1c7b2a11";

    impl Stub {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let virsh = dir.path().join("virsh");
            let text = format!(
                "#!/bin/sh\nd={}\ncase \"$*\" in *domjobinfo*) cat \"$d/job\" 2>/dev/null; exit 0 ;; esac\n\
                 echo \"$*\" >>\"$d/asked\"\n[ ! -e \"$d/behave\" ] || . \"$d/behave\"\nexit 0\n",
                dir.path().display()
            );
            std::fs::write(&virsh, text).unwrap();
            std::fs::set_permissions(&virsh, std::fs::Permissions::from_mode(0o755)).unwrap();
            Stub(dir)
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.0.path().join(name)
        }

        fn spawn(&self, words: &[&str], xml: Option<&str>) -> std::process::Child {
            let place = |text: &str, from: &str, to: &str| text.replace(from, &self.path(to).display().to_string());
            let script = place(&place(SCRIPT, "/var/lib/rackhand/floor", "floor"), "/run/rackhand/requests", "run");
            let script = xml.map_or(script.clone(), |xml| format!("xml='{xml}'\n{script}"));
            let path = format!("{}:{}", self.0.path().display(), std::env::var("PATH").unwrap());
            let mut child = Command::new("sh")
                .args(["-s", "--"])
                .args(words)
                .env("PATH", path)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            child
        }

        fn ask(&self, verb: &str, generation: u64, rest: &[&str]) -> String {
            let generation = generation.to_string();
            let words: Vec<&str> = [verb, UUID, &generation, "1"].into_iter().chain(rest.iter().copied()).collect();
            let output = self.spawn(&words, Some("<domain/>")).wait_with_output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
        }

        fn asked(&self) -> Vec<String> {
            let text = std::fs::read_to_string(self.path("asked")).unwrap_or_default();
            text.lines().map(|line| line.trim_start_matches("-q -k 0 -c qemu:///system ").to_owned()).collect()
        }

        fn behave(&self, how: &str) {
            std::fs::write(self.path("behave"), how).unwrap();
        }
    }

    fn until(what: impl Fn() -> bool) {
        let began = std::time::SystemTime::now();
        while !what() {
            assert!(began.elapsed().unwrap() < Duration::from_secs(20), "it never came");
            std::thread::yield_now();
        }
    }

    fn exists(path: &Path) -> bool {
        path.exists()
    }

    #[test]
    fn what_is_older_than_the_floor_does_not_run() {
        let host = Stub::new();
        assert_eq!(host.ask("create", 3, &[]), "done");
        assert_eq!(host.ask("resume", 3, &[]), "done");
        assert_eq!(host.ask("raise", 5, &[]), "done");
        for verb in ["create", "resume", "destroy", "suspend", "migrate", "raise"] {
            assert_eq!(host.ask(verb, 4, &[]), "older 5", "{verb}");
        }
        assert_eq!(host.ask("destroy", 5, &[]), "done");
        let asked = host.asked();
        assert!(asked[0].starts_with("create --paused "), "{asked:?}");
        assert_eq!(asked[1..], [format!("resume {UUID}"), format!("destroy {UUID}")]);
        let mode = std::fs::metadata(host.path("floor").join(UUID)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "for root alone");
    }

    #[test]
    fn a_floor_that_cannot_be_read_lets_nothing_through() {
        let host = Stub::new();
        std::fs::create_dir_all(host.path("floor")).unwrap();
        std::fs::write(host.path("floor").join(UUID), "").unwrap();
        assert!(host.ask("resume", 9, &[]).starts_with("broken"));
        assert!(host.asked().is_empty());
    }

    #[test]
    fn what_libvirt_may_still_do_keeps_the_lock_when_its_sender_is_gone() {
        let host = Stub::new();
        host.behave("until [ -e \"$d/go\" ]; do sleep 0.02; done\n");
        let mut child = host.spawn(&["resume", UUID, "3", "1"], None);
        until(|| exists(&host.path("asked")));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(host.ask("raise", 4, &[]), "held", "the request is not over yet");
        std::fs::write(host.path("go"), "").unwrap();
        until(|| host.ask("raise", 4, &[]) == "done");
    }

    #[test]
    fn a_move_holds_the_lock_until_its_job_shows() {
        let host = Stub::new();
        host.behave("case \"$*\" in *migrate*) until [ -e \"$d/go\" ]; do sleep 0.02; done; echo 'error: gone'; exit 1 ;; esac\n");
        let mut child = host.spawn(&["migrate", UUID, "3", "1", "--live", UUID, "qemu+tls://h2/system"], None);
        until(|| exists(&host.path("asked")));
        assert_eq!(host.ask("raise", 4, &[]), "held", "libvirt may not have begun");
        std::fs::write(host.path("job"), "Operation: Outgoing migration\n").unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(host.ask("raise", 4, &[]), "done");
        assert_eq!(host.ask("outcome", 3, &[]), "under-way");
        std::fs::write(host.path("go"), "").unwrap();
        until(|| host.ask("outcome", 3, &[]) == "failed 1\nerror: gone");
        assert!(host.ask("outcome", 2, &[]).starts_with("broken"), "of another move it knows nothing");
    }

    #[test]
    fn every_answer_says_whether_it_ran() {
        let read = |text: &str| {
            answer("h1", "end the guest", &Output { stdout: text.into(), ..Output::default() })
                .map_err(|e| (e.nothing_ran(), e.unknown()))
        };
        assert_eq!(read("done\n"), Ok(Answer::Done));
        assert_eq!(read("under-way\n"), Ok(Answer::UnderWay));
        for text in ["older 7\n", "held\n", "broken\nno flock\n"] {
            assert_eq!(read(text), Err((true, false)), "{text}");
        }
        assert_eq!(read("failed 1\nerror: Failed to destroy domain\nerror: busy\n"), Err((false, false)));
        assert_eq!(read("failed 1\nerror: Disconnected from qemu:///system due to end of file\n"), Err((false, true)));
        assert_eq!(read(""), Err((false, true)));
    }

    #[test]
    fn virsh_is_told_all_of_a_move() {
        let params = MigrateParams {
            destination: "qemu+tls://h2/system".into(),
            data: Some("tcp://h2".into()),
            bandwidth: Some(6),
            parallel: Some(4),
            auto_converge: true,
            tls: true,
            deadline: None,
        };
        let words = migrate_words(Uuid::nil(), &params).join(" ");
        assert_eq!(
            words,
            "--live --p2p --abort-on-error --auto-converge --tls --parallel --parallel-connections 4 --bandwidth 6 \
             --migrateuri tcp://h2 00000000-0000-0000-0000-000000000000 qemu+tls://h2/system"
        );
    }
}
