//! What README and docs tell people to type is understood, and what scripts read is written down.

use rackhand::cli;
use std::fs;
use std::path::{Path, PathBuf};

fn files(below: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(below)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == extension) {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// The commands of code blocks, as words: lines joined, comments, other commands and what is only a form left out.
fn commands(text: &str) -> Vec<Vec<String>> {
    let blocks = text.split("\n```").skip(1).step_by(2);
    let indented = text.lines().filter_map(|line| line.strip_prefix("    "));
    let lines = blocks.flat_map(|block| block.lines().skip(1).collect::<Vec<_>>()).chain(indented);
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let mut found = Vec::new();
    for part in joined.lines().flat_map(|line| line.split(" && ").flat_map(|part| part.split("; do "))) {
        let part = part.trim();
        let end = [" #", " >", "   "].into_iter().filter_map(|mark| part.find(mark)).min().unwrap_or(part.len());
        let part = part[..end].trim_end_matches("; done").replace('\'', "");
        let form = part.contains(['[', '|', '$', '<']) || part.contains("...");
        if part.starts_with("rackhand ") && !form {
            found.push(part.split_whitespace().map(str::to_owned).collect());
        }
    }
    found
}

#[test]
fn every_command_that_the_docs_show_is_one() {
    let mut seen = 0;
    for (path, text) in [files("README.md", "md"), files("docs", "md")].concat() {
        for words in commands(&text) {
            // `HOST` and the like stand for something.
            let form = |word: &String| match word.as_str() {
                "ADDRESS" => "10.0.0.9".to_owned(),
                word if word.chars().all(|c| c.is_ascii_uppercase()) => word.to_lowercase(),
                word => word.to_owned(),
            };
            let words: Vec<String> = words.iter().map(form).collect();
            let parsed = cli::command().try_get_matches_from(&words);
            let known = parsed.map_or_else(|error| !error.use_stderr(), |_| true);
            assert!(known, "{}: {}", path.display(), words.join(" "));
            seen += 1;
        }
    }
    assert!(seen > 30, "only {seen} commands found");
}

/// What stands between backticks and begins with the program's name, as words.
fn quoted(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let quotes = text.split("`rackhand ").skip(1).filter_map(|rest| rest.split('`').next());
    quotes.map(|command| command.split_whitespace().collect())
}

#[test]
fn every_command_that_a_message_names_is_one() {
    let sources = [files("src", "rs"), files("docs", "md"), files("README.md", "md")].concat();
    let mut all = cli::command();
    all.build();
    let mut seen = 0;
    for (path, text) in &sources {
        for words in quoted(text) {
            let mut command = &all;
            for word in &words {
                let Some(below) = command.find_subcommand(word) else { break };
                command = below;
            }
            let stands_for_something =
                |w: &str| w.starts_with(['-', '{', '.', '[']) || w.chars().all(char::is_uppercase);
            let name: Vec<&str> = words.iter().copied().take_while(|w| !stands_for_something(w)).collect();
            let known = name.is_empty() || !command.has_subcommands() || name.last() == Some(&command.get_name());
            assert!(known, "{}: `rackhand {}`", path.display(), words.join(" "));
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} commands found");
}

#[test]
fn every_document_is_in_the_list() {
    let list = files("docs/cli.md", "md").remove(0).1;
    for (path, text) in [files("src/cli", "rs"), files("src/provision/plan.rs", "rs")].concat() {
        for schema in text.split('"').filter(|word| word.starts_with("rackhand.") && word.ends_with("/1")) {
            assert!(list.contains(&format!("| `{schema}` |")), "{}: {schema}", path.display());
        }
    }
}

#[test]
fn every_link_leads_to_a_file_and_every_page_is_in_the_book() {
    let names = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs"];
    let pages: Vec<(PathBuf, String)> = names.iter().flat_map(|name| files(name, "md")).collect();
    let summary = files("docs/SUMMARY.md", "md").remove(0).1;
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut seen = 0;
    for (path, text) in &pages {
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ', '#']).next());
        for target in targets.filter(|t| !t.is_empty() && !t.contains("://")) {
            assert!(path.parent().unwrap().join(target).exists(), "{}: {target} does not exist", path.display());
            seen += 1;
        }
        if let Some(page) = path.strip_prefix(&docs).ok().filter(|page| page.as_os_str() != "SUMMARY.md") {
            assert!(summary.contains(&format!("]({})", page.display())), "docs/SUMMARY.md lacks {}", page.display());
        }
    }
    assert!(seen > 30, "only {seen} links found");
}
