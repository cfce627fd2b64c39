//! Colour: words that must not be overlooked, painted in the finished text, so that tables stay as wide as they are.

const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;
const CYAN: u8 = 36;

/// Words of results. In capitals: names of hosts and guests never are.
const WORDS: [(&str, u8); 9] = [
    ("HEALTH_OK", GREEN),
    ("HEALTH_WARN", YELLOW),
    ("HEALTH_ERR", RED),
    ("UNREACHABLE", RED),
    ("UNPROTECTED", RED),
    ("CRITICAL", RED),
    ("CANNOT", RED),
    ("FAILED", RED),
    ("UNKNOWN", RED),
];

/// How lines of events begin.
const BEGINNINGS: [(&str, u8); 6] =
    [("ok ", GREEN), ("FAILED ", RED), ("UNKNOWN", RED), ("warning:", YELLOW), ("error:", RED), ("hint:", CYAN)];

fn painted(text: &str, colour: u8) -> String {
    format!("\x1b[{colour}m{text}\x1b[0m")
}

/// A result with its words painted.
pub(super) fn words(text: &str) -> String {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !inner(c)).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        match WORDS.iter().find(|(known, _)| *known == word) {
            Some((_, colour)) => out.push_str(&painted(word, *colour)),
            None => out.push_str(word),
        }
        let gap = tail.find(inner).unwrap_or(tail.len());
        out.push_str(&tail[..gap]);
        rest = &tail[gap..];
    }
    out
}

/// Lines of events with their beginnings painted.
pub(super) fn lines(text: &str) -> String {
    let paint = |line: &str| match BEGINNINGS.iter().find(|(known, _)| line.starts_with(known)) {
        Some((known, colour)) => format!("{}{}", painted(known, *colour), &line[known.len()..]),
        None => line.to_owned(),
    };
    text.split('\n').map(paint).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_painted_whole_and_the_text_stays() {
        let table = "rack: HEALTH_WARN\n\nHOST  STATE\nh3    UNREACHABLE  (CRITICAL)\nMY_CRITICAL-1 ÄFAILED";
        let shown = words(table);
        assert_eq!(shown.matches("\x1b[0m").count(), 4, "{shown:?}");
        let plain = shown.replace("\x1b[0m", "").replace("\x1b[31m", "").replace("\x1b[33m", "");
        assert_eq!(plain, table);
    }

    #[test]
    fn an_events_first_word_is_painted() {
        assert_eq!(lines("error: x\nhint: y"), "\x1b[31merror:\x1b[0m x\n\x1b[36mhint:\x1b[0m y");
        assert_eq!(lines("okay"), "okay");
    }
}
