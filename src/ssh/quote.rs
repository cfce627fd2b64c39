//! Words for a POSIX shell; the only place that quotes for one.

use shlex::Quoter;

/// Quotes a word so that a POSIX shell reads exactly it. No argument can hold a NUL byte, so one is left out.
pub fn quote(word: &str) -> String {
    let word = word.replace('\0', "");
    // Nothing else than a NUL is refused.
    Quoter::new().quote(&word).map_or_else(|_| "''".to_owned(), std::borrow::Cow::into_owned)
}

/// Quotes words and joins them with blanks.
pub fn join<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    words.into_iter().map(|word| quote(word.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_back(words: &[String]) -> String {
        let line = format!("printf '<%s>' {}", join(words));
        let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn words_are_read_back_by_a_real_shell() {
        let words = ["plain", "", "two words", "it's", "$HOME `id` \\ \"x\"", "a\nb", "*", "~", "-n", "!x", "ü\n"];
        for word in words {
            assert_eq!(read_back(&[word.to_owned()]), format!("<{word}>"));
        }
        assert_eq!(join(["a", "b c"]), "a 'b c'");
        assert_eq!(quote("a\0b"), "ab");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_words_are_read_back(words in prop::collection::vec("[^\0]{0,12}", 1..4)) {
            let expected: String = words.iter().map(|word| format!("<{word}>")).collect();
            prop_assert_eq!(read_back(&words), expected);
        }
    }
}
