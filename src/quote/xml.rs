//! Text for XML.

/// A text as it may stand in an element or an attribute. A character that XML 1.0 has no way to write, which most control
/// characters are, becomes U+FFFD: a definition with it would be refused as a whole.
pub fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            // In an attribute a parser would make blanks of them.
            '\t' => out.push_str("&#9;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_parser_reads_what_was_written(text in any::<String>()) {
            let document = format!("<a b='{0}' c=\"{0}\">.{0}</a>", xml(&text));
            let document = roxmltree::Document::parse(&document).unwrap();
            let root = document.root_element();
            let unwritable = |c: char| (c < ' ' && !"\t\n\r".contains(c)) || matches!(c, '\u{fffe}' | '\u{ffff}');
            let expected = text.replace(unwritable, "\u{fffd}");
            prop_assert_eq!(root.attribute("b"), Some(expected.as_str()));
            prop_assert_eq!(root.attribute("c"), Some(expected.as_str()));
            prop_assert_eq!(root.text().map(|text| &text[1..]), Some(expected.as_str()));
        }
    }
}
