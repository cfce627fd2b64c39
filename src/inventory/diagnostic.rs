//! What is wrong in a file: where, what, and how to put it right.

use crate::error::{Failure, Kind};
use std::fmt;

/// A place in a file: line and column count from 1, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Span {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
    /// Characters; never beyond the end of the line.
    pub length: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// Where.
    #[serde(flatten)]
    pub span: Span,
    /// What, as a fragment that names the object.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

impl Diagnostic {
    pub(super) fn new(span: Span, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Diagnostic { span, message: message.into(), fix: fix.into() }
    }
}

/// Everything that is wrong in a file; shown with the lines it is about, secrets masked.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    file: String,
    lines: Vec<String>,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    pub(super) fn new(file: impl Into<String>, text: &str, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by(|a, b| (a.span, &a.message).cmp(&(b.span, &b.message)));
        list.dedup();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for Diagnostic { span, .. } in &mut list {
            let end = lines.get(span.line.saturating_sub(1)).map_or(0, |l| l.trim_end().chars().count());
            span.length = span.length.min((end + 1).saturating_sub(span.column)).max(1);
        }
        Diagnostics { file: file.into(), lines, list }
    }

    /// Each of them, in the order of the file.
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Failure::new(Kind::Usage, diagnostics)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.list.len() == 1 { "mistake" } else { "mistakes" };
        write!(f, "{} has {} {noun}", self.file, self.list.len())?;
        for diagnostic in &self.list {
            let Span { line, column, .. } = diagnostic.span;
            write!(f, "\n\n{}:{line}:{column}: {}", self.file, diagnostic.message)?;
            if let Some((shown, start, length)) = self.snippet(diagnostic.span) {
                let gutter = line.to_string().len();
                write!(f, "\n  {line} | {shown}")?;
                write!(f, "\n  {:gutter$} | {:start$}{}", "", "", "^".repeat(length))?;
            }
            write!(f, "\n  fix: {}", diagnostic.fix)?;
        }
        Ok(())
    }
}

/// Characters of a line that are shown at most.
const WIDTH: usize = 110;
/// Characters shown before the place, where a line is too long.
const BEFORE: usize = 40;

impl Diagnostics {
    /// The line of a place as it may be shown, and where the caret goes.
    fn snippet(&self, span: Span) -> Option<(String, usize, usize)> {
        let masked = mask(&self.lines, span.line.checked_sub(1)?)?;
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let line: Vec<char> = masked.trim_end().chars().map(printable).collect();
        if line.is_empty() {
            return None;
        }
        let start = span.column.saturating_sub(1).min(line.len());
        let length = span.length.min(line.len() - start).max(1);
        if line.len() <= WIDTH {
            return Some((line.into_iter().collect(), start, length));
        }
        let from = start.saturating_sub(BEFORE);
        let part: String = line[from..].iter().take(WIDTH).collect();
        Some((part, start - from, length.min(WIDTH - (start - from))))
    }
}

/// What stands where a secret would.
const MASK: &str = "********";

/// A line with anything that may be a secret masked, by the names of the keys on it and above it.
///
/// Works on the text, not on what it means: it has to be right for files that cannot be parsed.
fn mask(lines: &[String], index: usize) -> Option<String> {
    let line = lines.get(index)?;
    let indent = |l: &str| l.len() - l.trim_start().len();
    let is_source_key = ["env:", "file:", "command:"].iter().any(|k| line.trim_start().starts_with(k));
    let above = lines[..index].iter().rev().find(|l| !l.trim().is_empty() && indent(l) < indent(line));
    if !is_source_key && above.is_some_and(|l| last_key(l).is_some_and(is_secretive)) {
        return Some(format!("{}{MASK}", &line[..indent(line)]));
    }
    Some(mask_values(line))
}

/// The last `key:` of a line.
fn last_key(line: &str) -> Option<&str> {
    let colon = line.rfind(": ").or_else(|| line.trim_end().strip_suffix(':').map(str::len))?;
    Some(key_before(&line[..colon]))
}

fn key_before(text: &str) -> &str {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let text = text.trim_end().trim_end_matches(['"', '\'']);
    let start = text.char_indices().rev().take_while(|(_, c)| word(*c)).last().map_or(text.len(), |(at, _)| at);
    &text[start..]
}

fn is_secretive(key: &str) -> bool {
    let key = key.to_lowercase();
    let hints = ["pass", "pwd", "secret", "token", "inline", "credential"];
    hints.iter().any(|hint| key.contains(hint)) || strsim::damerau_levenshtein(&key, "password") <= 2
}

/// Masks what follows each secretive key of a line.
fn mask_values(line: &str) -> String {
    let mut shown = String::new();
    let mut rest = line;
    while let Some(colon) = rest.find(':') {
        let (before, after) = rest.split_at(colon + 1);
        shown.push_str(before);
        rest = after;
        let key = key_before(&before[..colon]);
        let value = after.trim_start();
        let opens = value.starts_with(['{', '#', '*', '&']) || value.is_empty();
        if is_secretive(key) && (key == "inline" || !opens) {
            shown.push(' ');
            shown.push_str(MASK);
            rest = if value.starts_with(['"', '\'', '[', '{']) {
                ""
            } else {
                &value[value.find([',', '}']).unwrap_or(value.len())..]
            };
        }
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Fuzzer, kind_of};

    fn masked(text: &str) -> String {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (0..lines.len()).filter_map(|i| mask(&lines, i)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        for text in [
            "password: hunter2",
            "password: \"hunter2\"",
            "passwrod: hunter2",
            "bmc: {user: root, password: hunter2, port: 1}",
            "bmc: {user: root, password: {inline: hunter2}}",
            "password:\n  inline: hunter2",
            "password:\n  hunter2",
            "password: |\n  hunter2",
            "password: \"hunter2, {x}: hunter2",
            "\"password\": hunter2",
            "inline: [hunter2, hunter2]",
            "inline: {a: hunter2}",
            "api_token: hunter2",
        ] {
            assert!(!masked(text).contains("hunter"), "{}", masked(text));
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in ["password: {env: IDRAC}", "password:\n  file: keys/idrac", "address: 10.0.0.1", "cidr: fd00::/64"]
        {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let text = format!("{}x{}", "a".repeat(300), "b".repeat(300));
        let span = Span { line: 1, column: 301, length: 1 };
        let shown = Diagnostics::new("f", &text, vec![Diagnostic::new(span, "m", "f")]).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[3].find('x'), lines[4].find('^'));
        assert!(lines[3].len() < 130);
    }

    /// A secret stands in the middle, whatever is around it: no mistake that is told shows it.
    #[test]
    fn fuzz_secrets_in_mistakes() {
        const SECRET: &str = "Zq7-tIgEr";
        let block = format!("\n      password: {SECRET}\n");
        let inline = format!("\n      password: {{inline: \"{SECRET}\"}}\n");
        let corpus = [
            "cluster: {name: r}\nhosts:\n  - name: h1\n    bmc:\n      address: 10.0.0.9\n      user: root",
            "hosts: [{name: h, bmc: {",
            "a: \"",
            "\u{1}",
            "x: |",
        ];
        Fuzzer::run(&corpus, |input| {
            let text = String::from_utf8_lossy(input);
            let half = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let (before, after) = text.split_at(half);
            let mut kinds = String::new();
            for secret in [&block, &inline] {
                for text in [format!("{before}{secret}{after}"), format!("{text}{secret}"), format!("{secret}{text}")] {
                    if let Err(mistakes) = crate::inventory::parse("f.yaml", &text) {
                        let told = mistakes.to_string();
                        assert!(!told.contains(SECRET), "{told}");
                        kinds += &kind_of(&told);
                    }
                }
            }
            kinds
        });
    }
}
