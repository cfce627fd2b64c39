//! Long work on a host as a transient unit: a lost link neither kills nor doubles it.
//!
//! The unit's name makes a job happen once: starting it again only attaches to it, whether it runs or has ended, until
//! it is forgotten.

use super::error::RemoteError;
use super::exec::{Exec, Remote, RemoteExt, last_lines};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SCRIPT: &str = include_str!("job.sh");
/// First and longest pause between two looks at a job.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How long a host may be out of reach while its job runs: longer than links and switches take to come back. The job goes
/// on, and whoever asks next attaches to it.
const OUT_OF_REACH: Duration = Duration::from_secs(180);

/// A piece of long work for a host.
#[derive(Clone)]
pub struct Job {
    name: String,
    script: String,
    limit: Duration,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Job({})", self.name)
    }
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It was never started, or the host restarted and forgot it.
    Absent,
    /// It runs.
    Running,
    /// It ended with status 0.
    Done,
    /// It ended with this status.
    Exited(i32),
    /// It was killed: by its time limit, a signal, for want of memory.
    Killed(String),
    /// It began and is gone without a word; what it did has to be looked at.
    Unknown,
}

/// What a look at a job shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobStatus {
    /// Where it is.
    pub state: JobState,
    /// The end of its output, stdout and stderr together.
    pub log: String,
}

impl Job {
    /// A job named after what it does to what (`osd-create-sdb`); it is killed on the host after `limit`.
    pub fn new(name: impl Into<String>, script: impl Into<String>, limit: Duration) -> Self {
        let name = name.into().replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_' && c != '.', "_");
        Job { name, script: script.into(), limit }
    }

    /// Its unit on the host.
    pub fn unit(&self) -> String {
        format!("rackhand-{}.service", self.name)
    }

    /// Starts it; one that runs or has ended is left as it is, and its state is returned.
    ///
    /// # Errors
    /// When the host cannot be reached or systemd refuses.
    pub async fn start(&self, remote: &dyn Remote) -> Result<JobState, RemoteError> {
        let seconds = self.limit.as_secs().max(1).to_string();
        let length = self.script.len().to_string();
        let exec = Exec::argv(["sh", "-c", SCRIPT, "sh", "start", &self.name, &seconds, &length]);
        let output = remote.check(exec.stdin(self.script.as_bytes())).await?;
        Ok(parse(&output.text()).state)
    }

    /// Looks at it.
    ///
    /// # Errors
    /// When the host cannot be reached.
    pub async fn look(&self, remote: &dyn Remote) -> Result<JobStatus, RemoteError> {
        let output = remote.check(Exec::argv(["sh", "-c", SCRIPT, "sh", "look", &self.name])).await?;
        Ok(parse(&output.text()))
    }

    /// Stops it where it runs and removes its traces, so that the name can be used again.
    ///
    /// # Errors
    /// When the host cannot be reached.
    pub async fn forget(&self, remote: &dyn Remote) -> Result<(), RemoteError> {
        let exec = Exec::argv(["sh", "-c", SCRIPT, "sh", "forget", &self.name]);
        remote.check(exec.deadline(Duration::from_secs(60))).await.map(drop)
    }

    /// Starts or re-attaches, and waits for its end; `watch` sees the log grow.
    ///
    /// A link that breaks, while starting or while waiting, is taken up again for three minutes.
    ///
    /// # Errors
    /// When the job cannot be started, or nobody can say where it is: the host is out of reach, or the limit has passed.
    pub async fn wait(
        &self,
        remote: &dyn Remote,
        mut watch: impl FnMut(&JobStatus) + Send,
    ) -> Result<JobStatus, RemoteError> {
        let until = Instant::now() + self.limit + Duration::from_secs(30);
        let mut started = self.begun(remote).await?;
        let mut pause = PAUSES.0;
        let mut answered = Instant::now();
        loop {
            let looked = self.look(remote).await;
            if looked.is_ok() {
                answered = Instant::now();
            }
            match looked {
                Ok(status) if status.state == JobState::Absent && !started => started = self.begun(remote).await?,
                Ok(mut status) if status.state != JobState::Running => {
                    if status.state == JobState::Absent {
                        // It was there: the host has restarted since.
                        status.state = JobState::Unknown;
                    }
                    return Ok(status);
                }
                Ok(status) => watch(&status),
                Err(error) if answered.elapsed() >= OUT_OF_REACH || Instant::now() >= until => {
                    let (host, command) = (remote.name().to_owned(), self.unit());
                    return Err(RemoteError::Lost { host, command, reason: error.to_string() });
                }
                Err(_) => {}
            }
            if Instant::now() >= until {
                let (host, command) = (remote.name().to_owned(), self.unit());
                return Err(RemoteError::TimedOut { host, command, after: self.limit });
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Starts it; `false` where nobody knows whether that arrived.
    async fn begun(&self, remote: &dyn Remote) -> Result<bool, RemoteError> {
        match self.start(remote).await {
            Err(error) if error.unknown() => Ok(false),
            started => started.map(|_| true),
        }
    }

    /// Starts or re-attaches, waits, and forgets the job once it ended well; any other end is an error with the end of
    /// its output, and leaves its traces on the host.
    ///
    /// # Errors
    /// When it failed, was killed, or nobody knows.
    pub async fn run(&self, remote: &dyn Remote) -> Result<String, RemoteError> {
        let status = self.wait(remote, |_| {}).await?;
        let (host, command) = (remote.name().to_owned(), self.unit());
        match status.state {
            JobState::Done => {
                self.forget(remote).await?;
                Ok(status.log)
            }
            JobState::Exited(code) => {
                Err(RemoteError::Status { host, command, status: code, stderr: last_lines(&status.log) })
            }
            JobState::Killed(by) => Err(RemoteError::Killed { host, command, by, stderr: last_lines(&status.log) }),
            _ => Err(RemoteError::Lost { host, command, reason: "it is gone without saying how it ended".to_owned() }),
        }
    }
}

fn parse(text: &str) -> JobStatus {
    let (first, log) = text.split_once('\n').unwrap_or((text, ""));
    let words: Vec<&str> = first.split_whitespace().collect();
    let state = match words[..] {
        ["absent"] => JobState::Absent,
        ["running" | "started"] => JobState::Running,
        ["ended", "success", ..] => JobState::Done,
        ["ended", "exit-code", _, status] => status.parse().map_or(JobState::Unknown, JobState::Exited),
        ["ended", "timeout", ..] => JobState::Killed("its time limit".to_owned()),
        ["ended", "signal" | "core-dump", _, signal] => JobState::Killed(format!("signal {signal}")),
        ["ended", "oom-kill", ..] => JobState::Killed("the kernel, for want of memory".to_owned()),
        ["ended", result, ..] => JobState::Killed(result.to_owned()),
        _ => JobState::Unknown,
    };
    JobStatus { state, log: log.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::FakeRemote;

    #[test]
    fn every_answer_of_the_script_has_a_state() {
        for (answer, state) in [
            ("absent", JobState::Absent),
            ("running", JobState::Running),
            ("started", JobState::Running),
            ("ended success exited 0", JobState::Done),
            ("ended exit-code exited 3", JobState::Exited(3)),
            ("ended signal killed KILL", JobState::Killed("signal KILL".into())),
            ("ended timeout killed TERM", JobState::Killed("its time limit".into())),
            ("ended oom-kill killed KILL", JobState::Killed("the kernel, for want of memory".into())),
            ("ended resources exited 1", JobState::Killed("resources".into())),
            ("died", JobState::Unknown),
            ("", JobState::Unknown),
        ] {
            assert_eq!(parse(&format!("{answer}\n")).state, state, "{answer}");
        }
        assert_eq!(parse("running\none\ntwo\n").log, "one\ntwo\n");
    }

    #[test]
    fn a_name_is_made_fit_for_a_unit() {
        assert_eq!(Job::new("osd /dev/sdb", "", Duration::ZERO).unit(), "rackhand-osd__dev_sdb.service");
    }

    #[tokio::test]
    async fn a_failed_job_is_an_error_with_its_output() {
        let host = FakeRemote::new("h1").rule(|exec| {
            let answer = if exec.argv[4] == "start" { "started\n" } else { "ended exit-code exited 7\nno space\n" };
            Some(Ok(crate::ssh::Output { stdout: answer.into(), ..Default::default() }))
        });
        let job = Job::new("x", "echo secret", Duration::from_secs(5));
        let error = job.run(&host).await.unwrap_err();
        assert_eq!(error.to_string(), "host h1: `rackhand-x.service` exited with 7: no space");
        assert!(host.asked().iter().all(|exec| !exec.argv.join(" ").contains("secret")));
    }

    #[tokio::test]
    async fn a_job_that_ran_into_its_limit_is_not_told_as_an_exit() {
        let host = FakeRemote::new("h1").rule(|exec| {
            let answer = if exec.argv[4] == "start" { "started\n" } else { "ended timeout killed TERM\nfetching\n" };
            Some(Ok(crate::ssh::Output { stdout: answer.into(), ..Default::default() }))
        });
        let error = Job::new("x", "", Duration::from_secs(5)).run(&host).await.unwrap_err();
        assert_eq!(error.to_string(), "host h1: `rackhand-x.service` was killed by its time limit: fetching");
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_breaks_while_it_starts_neither_fails_nor_doubles_it() {
        for arrived in [true, false] {
            let starts = std::sync::atomic::AtomicUsize::new(0);
            let host = FakeRemote::new("h1").rule(move |exec| {
                let before = starts.load(std::sync::atomic::Ordering::Relaxed);
                if exec.argv[4] == "start" {
                    starts.store(before + 1, std::sync::atomic::Ordering::Relaxed);
                    if before == 0 {
                        let (host, command, reason) = ("h1".into(), "sh".into(), "broken".into());
                        return Some(Err(RemoteError::Lost { host, command, reason }));
                    }
                }
                let there = arrived || before > 1;
                let answer = if there { "ended success exited 0\nover\n" } else { "absent\n" };
                Some(Ok(crate::ssh::Output { stdout: answer.into(), ..Default::default() }))
            });
            assert_eq!(Job::new("x", "", Duration::from_secs(5)).run(&host).await.unwrap(), "over\n");
            let starts = host.asked().iter().filter(|exec| exec.argv[4] == "start").count();
            assert_eq!(starts, if arrived { 1 } else { 2 });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_dies_is_not_waited_for_until_the_jobs_limit() {
        let host = FakeRemote::new("h1").rule(|exec| {
            (exec.argv[4] == "start")
                .then(|| Ok(crate::ssh::Output { stdout: b"started\n".to_vec(), ..Default::default() }))
        });
        let began = Instant::now();
        let error = Job::new("x", "", Duration::from_secs(1800)).run(&host).await.unwrap_err();
        assert!(error.unknown(), "it may go on there: {error}");
        assert!((180..200).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_job_that_vanished_is_unknown() {
        let host = FakeRemote::new("h1").rule(|exec| {
            let answer = if exec.argv[4] == "start" { "started\n" } else { "absent\n" };
            Some(Ok(crate::ssh::Output { stdout: answer.into(), ..Default::default() }))
        });
        let error = Job::new("x", "", Duration::from_secs(5)).run(&host).await.unwrap_err();
        assert!(error.unknown());
    }
}
