//! The file against its schema: keys, types and the form of each value, all mistakes at once.

use super::diagnostic::{Diagnostic, Span};
use super::format;
use super::schema::{Schema, Shape};
use super::spanned_yaml::{Content, Entry, Node};
use serde_json::{Map, Number, Value};

/// Checks a file's shape. The value is complete only where there was no mistake.
pub(super) fn check(root: &Node, schema: &Schema, diagnostics: &mut Vec<Diagnostic>) -> Value {
    let mut walk = Walk { schema, diagnostics };
    walk.value(root, schema.root(), &Path::default(), root.span).unwrap_or_default()
}

/// Where a value is, as people name it: `host h3: bmc.kind`.
#[derive(Clone, Debug, Default)]
struct Path(String);

impl Path {
    fn key(&self, key: &str) -> Self {
        let joint = match self.0.as_str() {
            "" => "",
            p if p.starts_with("host ") && !p.contains(": ") => ": ",
            _ => ".",
        };
        Path(format!("{}{joint}{key}", self.0))
    }

    fn item(&self, index: usize, node: &Node) -> Self {
        match node.get("name").and_then(Node::text) {
            Some(name) if self.0 == "hosts" && !name.is_empty() => Path(format!("host {name}")),
            _ => Path(format!("{}[{index}]", self.0)),
        }
    }

    /// For the start of a message.
    fn prefix(&self) -> String {
        if self.0.is_empty() { String::new() } else { format!("{}: ", self.0) }
    }
}

struct Walk<'s, 'm> {
    schema: &'s Schema,
    diagnostics: &'m mut Vec<Diagnostic>,
}

impl<'s> Walk<'s, '_> {
    fn wrong(&mut self, span: Span, path: &Path, message: &str, fix: impl Into<String>) {
        self.diagnostics.push(Diagnostic::new(span, format!("{}{message}", path.prefix()), fix));
    }

    fn value(&mut self, node: &Node, schema: &'s Value, path: &Path, label: Span) -> Option<Value> {
        match self.schema.schema_check(schema) {
            Shape::Object { properties, required } => self.object(node, properties, &required, path, label),
            Shape::Names(inner) => {
                let entries = self.entries(node, path, label, "names with their values")?;
                let named = entries
                    .iter()
                    .map(|e| Some((e.key.clone(), self.value(&e.value, inner, &path.key(&e.key), e.span)?)));
                Some(Value::Object(named.collect::<Vec<_>>().into_iter().flatten().collect()))
            }
            Shape::List { items, min } => self.list(node, items, min, path),
            Shape::OneOf(options) => self.one_of(node, &options, path, label),
            Shape::Words(words) => self.word(node, &words, path),
            Shape::Text(kind) => self.text(node, kind, path),
            Shape::Integer { min, max } => self.integer(node, min, max, path),
            Shape::Number => self.number(node, path),
            Shape::Unknown => None,
        }
    }

    fn entries<'n>(&mut self, node: &'n Node, path: &Path, label: Span, what: &str) -> Option<&'n [Entry]> {
        if let Content::Map(entries) = &node.content {
            return Some(entries);
        }
        let span = if matches!(node.content, Content::Null) { label } else { node.span };
        self.wrong(
            span,
            path,
            &format!("{what} are expected, found {}", found(node)),
            "write one `key: value` a line, indented",
        );
        None
    }

    fn object(
        &mut self,
        node: &Node,
        properties: &'s Map<String, Value>,
        required: &[&str],
        path: &Path,
        label: Span,
    ) -> Option<Value> {
        let entries = self.entries(node, path, label, "keys with their values")?;
        let mut object = Map::new();
        let mut meant: Vec<&str> = Vec::new();
        for entry in entries {
            let Some(schema) = properties.get(&entry.key) else {
                meant.extend(self.unknown_key(entry, properties, path));
                continue;
            };
            let null = matches!(entry.value.content, Content::Null);
            if null && !required.contains(&entry.key.as_str()) {
                continue;
            }
            if let Some(value) = self.value(&entry.value, schema, &path.key(&entry.key), entry.span) {
                object.insert(entry.key.clone(), value);
            }
        }
        for key in required {
            if !entries.iter().any(|e| e.key == *key) && !meant.contains(key) {
                let of = if path.0.is_empty() { "the inventory" } else { &path.0 };
                let about = properties[*key]["description"].as_str().unwrap_or_default().trim_end_matches('.');
                let about = about.split(". ").next().unwrap_or_default();
                let message = format!("{of} has no `{key}`");
                self.diagnostics.push(Diagnostic::new(
                    label,
                    message,
                    format!("add `{key}:` ({})", lower_first(about)),
                ));
            }
        }
        Some(Value::Object(object))
    }

    /// Reports an unknown key; the known one it probably stands for.
    fn unknown_key(&mut self, entry: &Entry, properties: &'s Map<String, Value>, path: &Path) -> Option<&'s str> {
        let key = &entry.key;
        let near = format::nearest(key, properties.keys().map(String::as_str));
        let fix = match near {
            Some(known) => format!("did you mean `{known}`?"),
            None => {
                let known: Vec<&str> = properties.keys().map(String::as_str).collect();
                format!("remove it; known here: {}", known.join(", "))
            }
        };
        self.wrong(entry.span, path, &format!("unknown key `{key}`"), fix);
        near
    }

    fn list(&mut self, node: &Node, items: &'s Value, min: u64, path: &Path) -> Option<Value> {
        let Content::List(nodes) = &node.content else {
            let fix = "write `[a, b]`, or one `- item` a line";
            self.wrong(node.span, path, &format!("a list is expected, found {}", found(node)), fix);
            return None;
        };
        if (nodes.len() as u64) < min {
            self.wrong(node.span, path, "the list is empty", format!("list at least {min}"));
        }
        let mut values = Vec::new();
        for (index, item) in nodes.iter().enumerate() {
            values.extend(self.value(item, items, &path.item(index, item), item.span));
        }
        Some(Value::Array(values))
    }

    fn one_of(&mut self, node: &Node, options: &[(&'s str, &'s Value)], path: &Path, label: Span) -> Option<Value> {
        let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
        // The value itself is neither shown nor pointed at: it may be a secret.
        let Content::Map(entries) = &node.content else {
            let fix =
                "write {env: NAME}, {file: PATH} or {command: [WORD, ...]}; {inline: ...} keeps it here all the same";
            self.wrong(label, path, "a secret does not stand in the inventory, only where it comes from", fix);
            return None;
        };
        let [entry] = entries.as_slice() else {
            let message = format!("exactly one of {} is expected, found {}", names.join(", "), entries.len());
            self.wrong(label, path, &message, "keep one of them");
            return None;
        };
        let Some((name, schema)) = options.iter().find(|(name, _)| *name == entry.key) else {
            let known = format::nearest(&entry.key, names.iter().copied());
            let fix = known.map_or_else(|| format!("one of {}", names.join(", ")), |k| format!("did you mean `{k}`?"));
            self.wrong(entry.span, path, &format!("unknown key `{}`", entry.key), fix);
            return None;
        };
        let value = self.value(&entry.value, schema, &path.key(name), entry.span)?;
        Some(Value::Object([((*name).to_owned(), value)].into_iter().collect()))
    }

    fn scalar<'n>(&mut self, node: &'n Node, what: &str, path: &Path) -> Option<(&'n str, bool)> {
        if let Content::Scalar { text, plain } = &node.content {
            return Some((text, *plain));
        }
        self.wrong(node.span, path, &format!("{what} is expected, found {}", found(node)), format!("write {what}"));
        None
    }

    fn word(&mut self, node: &Node, words: &[&str], path: &Path) -> Option<Value> {
        let (text, _) = self.scalar(node, "a word", path)?;
        if words.contains(&text) {
            return Some(text.into());
        }
        let all = words.join(", ");
        let fix = match format::nearest(text, words.iter().copied()) {
            Some(word) => format!("did you mean `{word}`? Known are {all}"),
            None => format!("write one of {all}"),
        };
        self.wrong(node.span, path, &format!("unknown word `{}`", format::shorten(text)), fix);
        None
    }

    fn text(&mut self, node: &Node, kind: Option<&str>, path: &Path) -> Option<Value> {
        let (text, plain) = self.scalar(node, "a text", path)?;
        if let Some(kind) = kind {
            if let Err((message, fix)) = format::check(kind, text) {
                self.wrong(node.span, path, &message, fix);
                return None;
            }
        } else if text.is_empty() {
            self.wrong(node.span, path, "the text is empty", "write a text, or remove the key");
            return None;
        } else if plain && (text.parse::<f64>().is_ok() || matches!(text, "true" | "false")) {
            let secret = path.0.ends_with("inline");
            let shown = if secret { "..." } else { text };
            let kind = if secret { "this" } else { text };
            self.wrong(
                node.span,
                path,
                &format!("a text is expected, but {kind} reads as a number or a truth value"),
                format!("quote it: \"{shown}\""),
            );
            return None;
        }
        Some(text.into())
    }

    fn integer(&mut self, node: &Node, min: u64, max: u64, path: &Path) -> Option<Value> {
        let (text, plain) = self.scalar(node, "a whole number", path)?;
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse::<u64>() {
            Ok(n) if plain && digits && (min..=max).contains(&n) => return Some(n.into()),
            Ok(n) if digits && !(min..=max).contains(&n) => {
                let range = format!("write a number from {min} to {max}");
                self.wrong(node.span, path, &format!("{n} is out of range"), range);
            }
            Ok(n) if digits => {
                self.wrong(
                    node.span,
                    path,
                    "a whole number is expected, found a quoted text",
                    format!("write {n} without quotes"),
                );
            }
            _ => {
                let message = format!("`{}` is not a whole number", format::shorten(text));
                let meant = format::meant_number(text).filter(|n| (min..=max).contains(n));
                let fix = match meant {
                    Some(n) => format!("write the digits alone, for example {n}"),
                    None => format!("write a number from {min} to {max}"),
                };
                self.wrong(node.span, path, &message, fix);
            }
        }
        None
    }

    fn number(&mut self, node: &Node, path: &Path) -> Option<Value> {
        let (text, plain) = self.scalar(node, "a number", path)?;
        let number = text.parse::<f64>().ok().filter(|_| plain).and_then(Number::from_f64);
        if number.is_none() {
            self.wrong(
                node.span,
                path,
                &format!("`{}` is not a number", format::shorten(text)),
                "write for example 4.0",
            );
        }
        number.map(Value::Number)
    }
}

fn found(node: &Node) -> String {
    match &node.content {
        Content::Null => "nothing".to_owned(),
        Content::Scalar { .. } => "a single value".to_owned(),
        Content::List(_) => "a list".to_owned(),
        Content::Map(_) => "keys with values".to_owned(),
    }
}

fn lower_first(text: &str) -> String {
    let acronym = text.chars().nth(1).is_some_and(char::is_uppercase);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if !acronym => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}
