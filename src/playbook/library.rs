//! Playbooks: YAML rendered for each host, with templates beside it.

use super::resource::Resource;
use super::writers;
use crate::error::{Failure, Kind, LocalExt, ResultExt};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use serde::Deserialize;
use std::path::PathBuf;

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        /// The playbooks and templates that come with the program.
        const EMBEDDED: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../playbooks/", $name)))),*];
    };
}
embedded![
    "libvirt.yaml",
    "network.yaml",
    "os.yaml",
    "packages.yaml",
    "templates/chrony.conf.j2",
    "templates/libvirtd.conf.j2",
    "templates/qemu.conf.j2",
    "time.yaml",
];

/// Where playbooks and templates come from: a team's directory first, then those in the program.
#[derive(Clone, Debug, Default)]
pub struct Library {
    directory: Option<PathBuf>,
    /// One playbook of a team's, whatever its file is called, by the name it is asked for.
    own: Option<(String, PathBuf)>,
}

/// What a host shall have, rendered for it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Playbook {
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// The resources, in the order they are made.
    #[serde(default)]
    pub resources: Vec<Resource>,
    /// What this host does without, and why; shown in the plan.
    #[serde(default)]
    pub skipped: Vec<SkippedResource>,
}

/// Something a host does without.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct SkippedResource {
    /// What is left out.
    pub object: String,
    /// Why.
    pub reason: String,
}

impl Library {
    /// The embedded files, overridden by those of the same name in `directory`.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Library { directory, own: None }
    }

    /// A team's own playbook, never a built-in one of the same name; its templates are in `templates/` beside it.
    pub fn of(name: &str, playbook: PathBuf) -> Self {
        let directory = playbook.parent().map(PathBuf::from);
        Library { directory, own: Some((format!("{name}.yaml"), playbook)) }
    }

    fn text(&self, name: &str) -> Result<String, Failure> {
        let own = self.own.as_ref().filter(|(file, _)| file == name).map(|(_, path)| path.clone());
        let beside = || self.directory.as_ref().map(|d| d.join(name)).filter(|p| p.exists());
        if let Some(path) = own.or_else(beside) {
            return std::fs::read_to_string(&path)
                .or_kind(Kind::Usage)
                .while_doing(|| format!("cannot read {}", path.display()));
        }
        let embedded = EMBEDDED.iter().find(|(n, _)| *n == name).map(|(_, text)| (*text).to_owned());
        embedded.ok_or_else(|| Failure::usage(format!("there is no playbook or template {name}")))
    }

    /// The book of this name, rendered with these facts.
    ///
    /// # Errors
    /// When it is not there or is wrong (exit 2).
    pub fn book(&self, name: &str, facts: &Value) -> Result<Playbook, Failure> {
        let file = format!("{name}.yaml");
        let text = self.text(&file)?;
        self.render_book(&file, &text, facts)
    }

    fn render_book(&self, name: &str, text: &str, facts: &Value) -> Result<Playbook, Failure> {
        let yaml = self.render(name, text, facts)?;
        let mut book: Playbook =
            serde_saphyr::from_str(&yaml).map_err(|e| Failure::usage(format!("playbook {name}, as rendered: {e}")))?;
        for resource in &mut book.resources {
            self.fill(resource, facts).while_doing(|| format!("playbook {name}: {}", resource.object()))?;
        }
        Ok(book)
    }

    fn render(&self, name: &str, text: &str, facts: &Value) -> Result<String, Failure> {
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(true)
            .build()
            .or_kind(Kind::Failed)?;
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_syntax(syntax);
        writers::register(&mut environment);
        // By default values in `.yaml` are quoted, also in the middle of words.
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment
            .render_named_str(name, text, facts)
            .map_err(|e| Failure::usage(format!("cannot render {name}: {e}")))
    }

    /// Replaces templates by their text and checks what the type alone cannot.
    fn fill(&self, resource: &mut Resource, facts: &Value) -> Result<(), Failure> {
        let (template, content) = match resource {
            Resource::File(f) => (&mut f.template, &mut f.content),
            Resource::Block(b) => (&mut b.template, &mut b.content),
            _ => return checked(resource),
        };
        match (template.take(), &content) {
            (Some(_), Some(_)) => return Err(Failure::usage("has both content and template")),
            (None, None) => return Err(Failure::usage("has neither content nor template")),
            (Some(name), None) => {
                let text = self.text(&format!("templates/{name}"))?;
                *content = Some(self.render(&name, &text, facts)?);
            }
            (None, Some(_)) => {}
        }
        checked(resource)
    }
}

/// Refuses paths and names that the line-based answer of a host could not carry.
fn checked(resource: &Resource) -> Result<(), Failure> {
    let mut paths: Vec<&str> = resource.path().into_iter().collect();
    match resource {
        Resource::Directory(d) => paths.push(&d.path),
        Resource::Service(s) => paths.extend(s.restart_on.iter().map(String::as_str)),
        _ => {}
    }
    for path in paths {
        if !path.starts_with('/') || path.contains(['\n', '\t', '\\']) || path.split('/').any(|part| part == "..") {
            return Err(Failure::usage(format!("`{path}` is not an absolute path without odd characters")));
        }
    }
    let words: Vec<&str> = match resource {
        Resource::Packages(names) => names.iter().map(String::as_str).collect(),
        Resource::Service(s) => vec![&s.unit],
        Resource::Sysctl(s) => s.values.keys().map(String::as_str).collect(),
        Resource::Modules(m) => m.names.iter().map(String::as_str).collect(),
        Resource::User(u) => vec![&u.name],
        Resource::Bridge(b) => vec![&b.name, &b.uplink],
        _ => Vec::new(),
    };
    let odd = |word: &&&str| {
        word.is_empty()
            || word.starts_with('-')
            || !word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:@+".contains(&b))
    };
    match words.iter().find(odd) {
        Some(word) => Err(Failure::usage(format!("`{word}` is not a name"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::context;

    fn read(yaml: &str) -> Result<Playbook, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("team.yaml");
        std::fs::create_dir(directory.path().join("templates")).unwrap();
        std::fs::write(directory.path().join("templates/motd.j2"), "welcome to {{ host.name }}\n").unwrap();
        std::fs::write(&path, yaml).unwrap();
        let library = Library::new(Some(directory.path().to_path_buf()));
        library.book("team", &context! { host => context! { name => "h1" } })
    }

    #[test]
    fn a_book_is_rendered_for_a_host_with_its_templates() {
        let book = read(
            "resources:\n  - file: {path: /etc/motd, template: motd.j2}\n{% if host.name == 'h1' %}\n  - packages: [auditd]\n{% endif %}\n",
        )
        .unwrap();
        assert_eq!(book.resources[0], Resource::File(super::super::File::new("/etc/motd", "welcome to h1\n")));
        assert_eq!(book.resources[1], Resource::Packages(vec!["auditd".into()]));
    }

    #[test]
    fn a_teams_playbook_is_read_whatever_its_file_is_called() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("os.yml");
        std::fs::write(&path, "description: ours\nresources: []\n").unwrap();
        let book = Library::of("os", path).book("os", &context! {}).unwrap();
        assert_eq!(book.description, "ours", "and not the built-in one of that name");
    }

    #[test]
    fn mistakes_are_usage_errors_that_name_the_place() {
        let table = [
            ("resources:\n  - file: {path: etc/motd, content: x}\n", "not an absolute path"),
            ("resources:\n  - file: {path: /etc/motd}\n", "neither content nor template"),
            (
                "resources:\n  - file: {path: /etc/motd, template: gone.j2}\n",
                "no playbook or template templates/gone.j2",
            ),
            ("resources:\n  - service: {unit: '-x'}\n", "`-x` is not a name"),
            ("resources:\n  - flie: {path: /etc/motd}\n", "flie"),
            ("resources:\n  - packages: [{{ nobody }}]\n", "undefined"),
        ];
        for (yaml, expected) in table {
            let failure = read(yaml).unwrap_err();
            assert_eq!(failure.kind, Kind::Usage);
            assert!(failure.to_string().contains(expected), "{expected}: {failure}");
        }
    }

    #[test]
    fn every_file_of_the_directory_is_embedded() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("playbooks");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&root).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".yaml") {
                found.push(name);
            }
        }
        for entry in std::fs::read_dir(root.join("templates")).unwrap().flatten() {
            found.push(format!("templates/{}", entry.file_name().to_string_lossy()));
        }
        found.sort();
        let embedded: Vec<&str> = EMBEDDED.iter().map(|(name, _)| *name).collect();
        assert_eq!(found, embedded);
    }
}
