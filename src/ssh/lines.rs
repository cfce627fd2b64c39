//! A standing script on a host: a line in, a line out.

use super::channel::{ChannelEnd, ChannelIn, ChannelOut};
use super::error::RemoteError;
use super::exec::{Exec, Remote};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

/// Longest line taken from the host; more means that something else than the script talks.
const LINE_LIMIT: u64 = 64 << 20;

/// Asks a standing script one question after another; each answer is one line.
///
/// After any error the answers no longer match the questions, so it must be dropped and opened anew.
pub struct LineChannel {
    host: String,
    what: String,
    stdin: ChannelIn,
    stdout: BufReader<ChannelOut>,
    end: ChannelEnd,
    broken: bool,
}

impl std::fmt::Debug for LineChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LineChannel({} on {})", self.what, self.host)
    }
}

impl LineChannel {
    /// Starts the script; its deadline does not end it, closing its stdin does.
    ///
    /// # Errors
    /// When the host cannot be reached.
    pub async fn open(remote: &dyn Remote, exec: Exec) -> Result<Self, RemoteError> {
        let what = exec.argv.first().cloned().unwrap_or_default();
        let (stdin, stdout, end) = remote.channel(exec).await?.into_parts();
        let host = remote.name().to_owned();
        Ok(LineChannel { host, what, stdin, stdout: BufReader::new(stdout), end, broken: false })
    }

    /// Sends a line and waits for the answer.
    ///
    /// # Errors
    /// [`RemoteError::TimedOut`] or [`RemoteError::Lost`]: whether the question had an effect is unknown.
    pub async fn ask(&mut self, line: &str, deadline: Duration) -> Result<String, RemoteError> {
        if self.broken {
            return Err(self.lost("an earlier question got no answer"));
        }
        // Set until the answer is here: a dropped future leaves an answer behind that belongs to nobody.
        self.broken = true;
        let answer = match timeout(deadline, self.exchange(line)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.lost(&error.to_string())),
            Err(_) => {
                let (host, command) = (self.host.clone(), self.what.clone());
                return Err(RemoteError::TimedOut { host, command, after: deadline });
            }
        };
        self.broken = false;
        Ok(answer)
    }

    /// Whether it can no longer be used.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    async fn exchange(&mut self, line: &str) -> std::io::Result<String> {
        use tokio::io::AsyncReadExt;
        self.stdin.write_all(line.as_bytes()).await?;
        self.stdin.write_all(b"\n").await?;
        self.stdin.flush().await?;
        let mut answer = Vec::new();
        (&mut self.stdout).take(LINE_LIMIT).read_until(b'\n', &mut answer).await?;
        if answer.pop() != Some(b'\n') {
            return Err(std::io::Error::other("the script ended"));
        }
        String::from_utf8(answer).map_err(std::io::Error::other)
    }

    fn lost(&self, reason: &str) -> RemoteError {
        let stderr = self.end.stderr();
        let said = stderr.lines().rfind(|line| !line.trim().is_empty()).map(|line| format!(": {}", line.trim()));
        let reason = format!("{reason}{}", said.unwrap_or_default());
        RemoteError::Lost { host: self.host.clone(), command: self.what.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::{Channel, Forward, Output};
    use async_trait::async_trait;

    /// Answers every line with itself in capitals; `quit` ends it.
    #[derive(Debug)]
    struct Echo;

    #[async_trait]
    impl Remote for Echo {
        fn name(&self) -> &str {
            "h1"
        }
        async fn run(&self, _: Exec) -> Result<Output, RemoteError> {
            Ok(Output::default())
        }
        async fn channel(&self, _: Exec) -> Result<Channel, RemoteError> {
            let (ours, theirs) = tokio::io::duplex(64);
            let (read, write) = tokio::io::split(ours);
            tokio::spawn(async move {
                let (read, mut write) = tokio::io::split(theirs);
                let mut lines = BufReader::new(read).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    match line.as_str() {
                        "quit" => break,
                        "silence" => {}
                        _ => drop(write.write_all(format!("{}\n", line.to_uppercase()).as_bytes()).await),
                    }
                }
            });
            Ok(Channel::new(write, read, ()))
        }
        async fn forward_socket(&self, path: &str) -> Result<Forward, RemoteError> {
            Ok(Forward::local(path))
        }
    }

    #[tokio::test]
    async fn questions_and_answers_alternate() {
        let mut lines = LineChannel::open(&Echo, Exec::argv(["x"])).await.unwrap();
        let minute = Duration::from_secs(60);
        assert_eq!(lines.ask("one", minute).await.unwrap(), "ONE");
        assert_eq!(lines.ask("two", minute).await.unwrap(), "TWO");
        assert!(matches!(lines.ask("quit", minute).await, Err(RemoteError::Lost { .. })));
        assert!(lines.is_broken());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unanswered_question_breaks_the_channel() {
        let mut lines = LineChannel::open(&Echo, Exec::argv(["x"])).await.unwrap();
        let second = Duration::from_secs(1);
        assert!(matches!(lines.ask("silence", second).await, Err(RemoteError::TimedOut { .. })));
        assert!(matches!(lines.ask("one", second).await, Err(RemoteError::Lost { .. })));
    }
}
