//! What of a command line is kept in the history: its command, the names it is about, and which flags it has. Values of
//! flags and all other words stay out, since some are secrets.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

/// Placeholders of arguments that name something of the rack.
const NAMES: [&str; 6] = ["HOST", "GUEST", "IMAGE", "NETWORK", "NAME", "NUMBER"];

/// A command line without anything that could be a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trace {
    /// The words of the command: `guest stop`.
    pub(super) command: String,
    /// Names that it is about.
    pub(super) objects: Vec<String>,
    /// Flags that were given, without their values.
    pub(super) flags: Vec<String>,
}

impl Trace {
    /// That of a parsed command line.
    pub(super) fn of(mut command: &Command, mut matches: &ArgMatches) -> Self {
        let mut trace = Trace::default();
        let mut words = Vec::new();
        loop {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                if matches.try_contains_id(id).unwrap_or_default()
                    && matches.value_source(id) == Some(ValueSource::CommandLine)
                {
                    trace.add(argument, matches);
                }
            }
            let Some((name, below)) = matches.subcommand() else { break };
            words.push(name.to_owned());
            let Some(next) = command.find_subcommand(name) else { break };
            (command, matches) = (next, below);
        }
        trace.command = words.join(" ");
        trace
    }

    fn add(&mut self, argument: &clap::Arg, matches: &ArgMatches) {
        let id = argument.get_id().as_str();
        if let Some(long) = argument.get_long() {
            let flag = format!("--{long}");
            if !self.flags.contains(&flag) {
                self.flags.push(flag);
            }
        }
        let placeholder = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
        let placeholder = placeholder.unwrap_or_else(|| id.to_uppercase());
        if NAMES.contains(&placeholder.as_str())
            && let Ok(Some(values)) = matches.try_get_raw(id)
        {
            self.objects.extend(values.map(|value| value.to_string_lossy().into_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::command;
    use super::*;

    fn trace(line: &str) -> Trace {
        let command = command();
        let matches = command.clone().try_get_matches_from(line.split(' ')).unwrap();
        Trace::of(&command, &matches)
    }

    #[test]
    fn names_are_kept_and_nothing_that_could_be_a_secret() {
        let stop = trace("rackhand guest stop web-1 db --timeout 5m --yes");
        assert_eq!(
            (stop.command.as_str(), &stop.objects[..]),
            ("guest stop", &["web-1".to_owned(), "db".to_owned()][..])
        );
        let mut flags = stop.flags.clone();
        flags.sort_unstable();
        assert_eq!(flags, ["--timeout", "--yes"]);
        let exec = trace("rackhand guest exec web-1 -- mysql -phunter2");
        assert_eq!((exec.command.as_str(), &exec.objects[..]), ("guest exec", &["web-1".to_owned()][..]));
        assert!(!format!("{exec:?}").contains("hunter2"));
        let import = trace("rackhand image import debian https://ann:hunter2@example.org/x.qcow2");
        assert_eq!(import.objects, ["debian"]);
        assert!(!format!("{import:?}").contains("hunter2"));
        assert_eq!(trace("rackhand evacuate h2 --return-later").objects, ["h2"]);
    }
}
