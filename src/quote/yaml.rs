//! Strings for YAML.

/// A text as a YAML string, whatever it looks like: `on`, `null`, `42` and `2026-11-27` are values of other types where they
/// stand bare. A JSON string is a YAML string; characters that YAML wants escaped and JSON does not are escaped too.
pub fn yaml(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        serde_saphyr::from_str::<std::collections::BTreeMap<String, String>>(text).unwrap()["key"].clone()
    }

    #[test]
    fn words_that_look_like_other_types_stay_strings() {
        for text in ["on", "no", "null", "~", "42", "007", "0x1f", "1e3", "2026-11-27", "1:20", "", "- a", "a: b", "#x"]
        {
            assert_eq!(yaml(text), format!("\"{text}\""));
            assert_eq!(read(&format!("key: {}\n", yaml(text))), text);
        }
    }

    proptest! {
        #[test]
        fn a_parser_reads_what_was_written(text in any::<String>()) {
            prop_assert_eq!(read(&format!("key: {}\n", yaml(&text))), text);
        }
    }
}
