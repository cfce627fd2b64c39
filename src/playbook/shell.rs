//! Words for the shell on a host.

/// Quotes a word so that the shell reads exactly it.
pub fn quote(word: &str) -> String {
    let plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&b));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Quotes words and joins them with blanks.
pub fn join<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    words.into_iter().map(|w| quote(w.as_ref())).collect::<Vec<_>>().join(" ")
}

/// A name as it may stand in a unit's name.
pub(super) fn unit_word(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back_by_a_real_shell() {
        for word in ["", "a", "a b", "it's", "$HOME `x` \\ \"", "*", "-n", "ü\n"] {
            let script = format!("printf %s {}", quote(word));
            let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
        assert_eq!(join(["a", "b c"]), "a 'b c'");
    }
}
