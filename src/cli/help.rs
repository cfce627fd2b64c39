//! The command line with its help: commands in groups, an example for each, completion of names.

use super::complete::complete_names;
use super::examples::EXAMPLES;
use clap::Command;
use std::fmt::Write;

/// The commands in the order of a rack's life.
pub(super) const GROUPS: [(&str, &[&str]); 8] = [
    ("Build the cluster", &["init", "inventory", "host", "facts", "check", "provision", "run"]),
    ("Run guests", &["image", "network", "guest"]),
    ("Move guests", &["migrate", "evacuate", "return"]),
    ("Back guests up", &["backup"]),
    ("Lose a host", &["incident", "fence", "failover", "readmit"]),
    ("Look after it", &["status", "doctor", "watch", "history"]),
    ("Try it on this machine", &["lab"]),
    ("Shell and manual", &["completions", "man", "help"]),
];

/// Below the short help of `rackhand` itself.
const MORE: &str = "\
`rackhand help COMMAND` shows the options and examples of a command.
`rackhand --help` shows the options that every command takes, and the exit codes.";

/// Below the long help of `rackhand` itself.
const CONTRACT: &str = "\
Exit codes:
    0  done, or nothing to do
    1  failed
    2  command line or inventory wrong; nothing was changed
    3  partly done: the rest is listed, run again
    4  a check found a problem
    5  refused because it would be unsafe; the message says what would make it safe
    6  outcome unknown: the message says what to look at
   75  another run holds this; try again later
  130  interrupted";

/// The command line with its help.
pub(super) fn dressed(command: Command) -> Command {
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}\nOptions:\n{{options}}{{after-help}}",
        groups(&command)
    );
    let command = dress(command, String::new());
    command.help_template(template).after_help(MORE).after_long_help(CONTRACT)
}

/// The groups, each command with the first line of its help.
fn groups(command: &Command) -> String {
    let mut text = String::new();
    for (title, names) in GROUPS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{title}:");
        for name in names {
            let about = match command.find_subcommand(name) {
                Some(command) => command.get_about().map(ToString::to_string).unwrap_or_default(),
                None => "Show the help of a command".to_owned(),
            };
            let _ = writeln!(text, "  {name:12} {about}");
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Gives a command and those below it their examples, and their arguments the names to complete.
fn dress(mut command: Command, path: String) -> Command {
    let below: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for name in below {
        let path = format!("{path} {name}").trim_start().to_owned();
        command = command.mut_subcommand(name, |below| dress(below, path));
    }
    if !path.starts_with("lab") {
        command = command.mut_args(complete_names);
    }
    let lines: Vec<String> = examples(&path).map(|line| format!("  {line}")).collect();
    match lines.is_empty() {
        true => command,
        false => command.after_help(format!("Examples:\n{}", lines.join("\n"))),
    }
}

/// The examples of a command.
fn examples(path: &str) -> impl Iterator<Item = &'static str> {
    EXAMPLES.iter().filter(move |(of, _)| *of == path).flat_map(|(_, lines)| lines.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, command};
    use clap::CommandFactory;

    /// Every command that is shown, with its path.
    fn all(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
        for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            let path = format!("{path} {}", below.get_name()).trim_start().to_owned();
            found.push((path.clone(), below.clone()));
            all(below, &path, found);
        }
    }

    #[test]
    fn every_command_is_in_one_group() {
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        let command = Cli::command();
        let mut shown: Vec<&str> =
            command.get_subcommands().filter(|c| !c.is_hide_set()).map(Command::get_name).collect();
        shown.push("help");
        grouped.sort_unstable();
        shown.sort_unstable();
        assert_eq!(grouped, shown);
    }

    #[test]
    fn every_command_has_an_example_and_every_example_is_one_of_its_command() {
        let mut commands = Vec::new();
        all(&Cli::command(), "", &mut commands);
        for (path, command) in &commands {
            assert!(command.has_subcommands() || examples(path).count() > 0, "{path} has no example in examples.rs");
        }
        for (path, lines) in EXAMPLES {
            assert!(commands.iter().any(|(of, _)| of == path), "{path} is not a command");
            for line in *lines {
                let words = line.split("  #").next().and_then(|words| words.split(" > ").next()).unwrap_or_default();
                let words: Vec<String> = words.split_whitespace().map(|w| w.replace('\'', "")).collect();
                assert!(words.join(" ").starts_with(&format!("rackhand {path}")), "{line} is not of {path}");
                let parsed = command().try_get_matches_from(&words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                assert!(line.len() <= 98, "{line} is too long");
            }
        }
    }

    #[test]
    fn the_short_help_is_a_screen_and_has_no_option_that_every_command_takes() {
        let mut command = command().term_width(100);
        let help = command.render_help().to_string();
        insta::assert_snapshot!(help);
        command.build();
        let guest = command.find_subcommand_mut("guest").unwrap();
        let help = guest.render_help().to_string();
        assert!(!help.contains("--inventory") && help.lines().count() < 24, "{help}");
        assert!(guest.render_long_help().to_string().contains("--inventory"));
    }
}
