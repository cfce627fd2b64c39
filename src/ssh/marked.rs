//! A command's streams: what comes before the mark is the login's, what comes after it the command's.

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Output kept of one stream of one command; more is read and dropped.
const OUTPUT_LIMIT: usize = 16 << 20;
/// What is kept of a login's own words, the newest; also of the stderr of a command that stays.
const TAIL_LIMIT: usize = 16 << 10;
const CHUNK: usize = 16 << 10;

/// What a stream brought to its end.
#[derive(Debug, Default)]
pub(super) struct Marked {
    /// What came before the mark, its end.
    pub(super) before: Vec<u8>,
    /// What came after it, its beginning; `None`: there was no mark.
    pub(super) after: Option<Vec<u8>>,
}

/// Looks for a mark that may be cut anywhere.
struct Search {
    mark: Vec<u8>,
    before: Vec<u8>,
}

impl Search {
    fn new(mark: Vec<u8>) -> Self {
        Search { mark, before: Vec::new() }
    }

    /// Takes what has come; once the mark is there, what follows it.
    fn push(&mut self, chunk: &[u8]) -> Option<Vec<u8>> {
        let from = (self.before.len() + 1).saturating_sub(self.mark.len());
        self.before.extend_from_slice(chunk);
        if let Some(at) = self.before[from..].windows(self.mark.len()).position(|w| w == self.mark) {
            let rest = self.before.split_off(from + at + self.mark.len());
            self.before.truncate(from + at);
            return Some(rest);
        }
        keep_tail(&mut self.before);
        None
    }
}

fn keep_tail(bytes: &mut Vec<u8>) {
    if bytes.len() > TAIL_LIMIT {
        bytes.drain(..bytes.len() - TAIL_LIMIT);
    }
}

/// Reads a stream to its end; `started` is called when the mark is there.
pub(super) async fn read_all(
    from: Option<impl AsyncRead + Unpin>,
    mark: Vec<u8>,
    started: impl FnOnce(),
) -> std::io::Result<Marked> {
    let Some(mut from) = from else { return Ok(Marked::default()) };
    let (mut search, mut after, mut started) = (Search::new(mark), None::<Vec<u8>>, Some(started));
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = from.read(&mut chunk).await?;
        if n == 0 {
            return Ok(Marked { before: search.before, after });
        }
        match &mut after {
            Some(kept) => keep_beginning(kept, &chunk[..n]),
            None => after = search.push(&chunk[..n]),
        }
        if after.is_some()
            && let Some(started) = started.take()
        {
            started();
        }
    }
}

fn keep_beginning(kept: &mut Vec<u8>, chunk: &[u8]) {
    let room = OUTPUT_LIMIT.saturating_sub(kept.len()).min(chunk.len());
    kept.extend_from_slice(&chunk[..room]);
}

/// Reads a stream without a mark to its end and keeps its beginning.
pub(super) async fn read_bounded(from: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let (mut kept, mut chunk) = (Vec::new(), vec![0; CHUNK]);
    let Some(mut from) = from else { return Ok(kept) };
    loop {
        match from.read(&mut chunk).await? {
            0 => return Ok(kept),
            n => keep_beginning(&mut kept, &chunk[..n]),
        }
    }
}

/// Reads a stream up to the mark: what came before it, and what of the rest has been read with it (`None`: it ended
/// without a mark).
pub(super) async fn read_to_mark(
    from: &mut (impl AsyncRead + Unpin),
    mark: Vec<u8>,
) -> std::io::Result<(Vec<u8>, Option<Vec<u8>>)> {
    let (mut search, mut chunk) = (Search::new(mark), vec![0; CHUNK]);
    loop {
        let n = from.read(&mut chunk).await?;
        if n == 0 {
            return Ok((search.before, None));
        }
        if let Some(rest) = search.push(&chunk[..n]) {
            return Ok((search.before, Some(rest)));
        }
    }
}

/// The stderr of a command that stays: read all the time, its end kept.
#[derive(Debug, Default)]
pub(super) struct StderrTail {
    login: Arc<Mutex<Vec<u8>>>,
    command: Arc<Mutex<Vec<u8>>>,
    reader: Option<tokio::task::JoinHandle<()>>,
}

impl StderrTail {
    /// Reads this stream from now on.
    pub(super) fn of(mut from: impl AsyncRead + Unpin + Send + 'static, mark: Vec<u8>) -> Self {
        let (login, command) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let (words, kept) = (Arc::clone(&login), Arc::clone(&command));
        let reader = tokio::spawn(async move {
            let (mut search, mut found, mut chunk) = (Search::new(mark), false, vec![0; CHUNK]);
            while let Ok(n @ 1..) = from.read(&mut chunk).await {
                let rest = if found { Some(chunk[..n].to_vec()) } else { search.push(&chunk[..n]) };
                found |= rest.is_some();
                if let (Some(rest), Ok(mut kept)) = (rest, kept.lock()) {
                    kept.extend_from_slice(&rest);
                    keep_tail(&mut kept);
                }
                if let Ok(mut words) = words.lock() {
                    words.clone_from(&search.before);
                }
            }
        });
        StderrTail { login, command, reader: Some(reader) }
    }

    /// Waits until the stream has ended.
    pub(super) async fn ended(&mut self) {
        if let Some(reader) = &mut self.reader {
            // Its end is all that matters.
            let _ = reader.await;
            self.reader = None;
        }
    }

    /// The end of what the command has said so far.
    pub(super) fn text(&self) -> String {
        text(&self.command)
    }

    /// What the login said before the command began.
    pub(super) fn login(&self) -> String {
        text(&self.login)
    }
}

impl Drop for StderrTail {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    bytes.lock().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn search(chunks: &[&[u8]]) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut search, mut after) = (Search::new(b"\x1eM\n".to_vec()), None::<Vec<u8>>);
        for chunk in chunks {
            match &mut after {
                Some(after) => after.extend_from_slice(chunk),
                None => after = search.push(chunk),
            }
        }
        (search.before, after)
    }

    proptest! {
        #[test]
        fn a_mark_is_found_however_the_stream_is_cut(
            before in "[M\n\u{1e}a]{0,6}",
            after in "[M\n\u{1e}a]{0,6}",
            cuts in prop::collection::vec(0usize..18, 0..5),
        ) {
            prop_assume!(!format!("{before}\u{1e}M").contains("\u{1e}M\n"));
            let whole = format!("{before}\u{1e}M\n{after}");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &whole.as_bytes()[w[0]..w[1]]).collect();
            prop_assert_eq!(search(&chunks), (before.into_bytes(), Some(after.into_bytes())));
        }
    }

    #[tokio::test]
    async fn a_flood_before_the_mark_is_dropped_and_one_after_it_is_cut() {
        let noise = vec![b'n'; 1 << 20];
        let mut stream = noise.clone();
        stream.extend_from_slice(b"\x1eM\n");
        stream.extend(vec![b'x'; OUTPUT_LIMIT + 5]);
        let marked = read_all(Some(&stream[..]), b"\x1eM\n".to_vec(), || {}).await.unwrap();
        assert!(marked.before.len() <= TAIL_LIMIT + CHUNK);
        assert_eq!(marked.after.unwrap().len(), OUTPUT_LIMIT);
        let none = read_all(Some(&noise[..]), b"\x1eM\n".to_vec(), || panic!("it never began")).await.unwrap();
        assert!(none.after.is_none() && none.before.len() == TAIL_LIMIT);
    }
}
