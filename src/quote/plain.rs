//! Words of another machine, for a terminal.

/// What another machine said, as one line of at most `most` characters: without control characters, which could move the
/// cursor or change its colour, and without runs of blanks.
pub fn plain(text: &str, most: usize) -> String {
    // Bidirectional marks reorder what stands around them.
    let hidden = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let text: String = text.chars().map(|c| if hidden(c) { ' ' } else { c }).collect();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(most) {
        Some((at, _)) => format!("{}...", line[..at].trim_end()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_machine_says_stays_on_one_line_of_bounded_length() {
        assert_eq!(
            plain(" The maximum\r\n\x1b[31m number \u{202e}is\treached. ", 80),
            "The maximum [31m number is reached."
        );
        assert_eq!(plain(&"äb ".repeat(100), 8), "äb äb äb...");
        assert_eq!(plain("\0\n", 8), "");
    }
}
