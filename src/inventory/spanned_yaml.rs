//! YAML as a tree whose every value knows its place.

use super::diagnostic::{Diagnostic, Span};
use granit_parser::{Event, Parser, ScalarStyle, StrInput};
use std::collections::HashMap;

/// Values in a file, aliases expanded; an inventory of a thousand hosts has some 40 000.
const MAX_NODES: usize = 250_000;
/// Depth of values, aliases expanded; an inventory needs 6.
const MAX_DEPTH: usize = 32;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub span: Span,
    pub content: Content,
}

/// What a value is. Whether a plain scalar is a number or a text is decided by what is expected there.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Null,
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub span: Span,
    pub value: Node,
}

impl Node {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|e| e.key == key).map(|e| &e.value).filter(|n| !matches!(n.content, Content::Null))
    }

    pub fn entries(&self) -> &[Entry] {
        if let Content::Map(entries) = &self.content { entries } else { &[] }
    }

    pub fn items(&self) -> &[Node] {
        if let Content::List(items) = &self.content { items } else { &[] }
    }

    pub fn text(&self) -> Option<&str> {
        if let Content::Scalar { text, .. } = &self.content { Some(text) } else { None }
    }

    fn weigh(&self) -> (usize, usize) {
        let children: Vec<(usize, usize)> = match &self.content {
            Content::List(items) => items.iter().map(Node::weigh).collect(),
            Content::Map(entries) => entries.iter().map(|e| e.value.weigh()).collect(),
            _ => Vec::new(),
        };
        let nodes = children.iter().map(|c| c.0).sum::<usize>() + 1;
        (nodes, children.iter().map(|c| c.1).max().unwrap_or(0) + 1)
    }
}

/// Reads a file's one document. Mistakes that leave a tree (duplicate keys, tags) are added to `mistakes`.
pub(super) fn parse(text: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<Node> {
    let options = granit_parser::options! {
        emit_comments: false,
        block_nesting_limit: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH,
    };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder { text, parser, anchors: HashMap::new(), nodes: 0, diagnostics };
    match builder.document() {
        Ok(root) => root,
        Err(diagnostic) => {
            builder.diagnostics.push(diagnostic);
            None
        }
    }
}

struct Builder<'t, 'm> {
    text: &'t str,
    parser: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, (Node, usize, usize)>,
    nodes: usize,
    diagnostics: &'m mut Vec<Diagnostic>,
}

type Step<T> = Result<T, Diagnostic>;

impl<'t> Builder<'t, '_> {
    fn next(&mut self) -> Step<(Event<'t>, Span)> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, place(&span))),
            Some(Err(error)) => Err(syntax(&error, self.text)),
            None => Ok((Event::StreamEnd, Span { line: 1, column: 1, length: 1 })),
        }
    }

    fn document(&mut self) -> Step<Option<Node>> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_some() => {
                    let fix = "remove the line `---` and what follows, or put it into a file of its own";
                    return Err(Diagnostic::new(span, "a second document begins here", fix));
                }
                Event::DocumentStart(..) => {}
                event => root = Some(self.node(event, span, 1)?),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Step<Node> {
        self.nodes += 1;
        self.within_limits(span, depth)?;
        let (anchor, tag) = (event.anchor_id(), event.tag().is_some());
        if tag {
            let fix = "remove the tag; quote the value if it is to be a text";
            self.diagnostics.push(Diagnostic::new(span, "tags like `!x` are not understood here", fix));
        }
        let node = match event {
            Event::Scalar(text, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let content = if null { Content::Null } else { Content::Scalar { text: text.into_owned(), plain } };
                Node { span, content }
            }
            Event::SequenceStart(..) => self.list(span, depth)?,
            Event::MappingStart(..) => self.map(span, depth)?,
            Event::Alias(id) => return self.alias(id, span, depth),
            _ => {
                return Err(Diagnostic::new(span, "a value is expected here", "write a value, a list or `key: value`"));
            }
        };
        if let Some(id) = anchor {
            let (nodes, height) = node.weigh();
            self.anchors.insert(id, (node.clone(), nodes, height));
        }
        Ok(node)
    }

    fn within_limits(&self, span: Span, depth: usize) -> Step<()> {
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            let message =
                if depth > MAX_DEPTH { "values are nested too deeply" } else { "the file has too many values" };
            return Err(Diagnostic::new(span, message, "an inventory needs a depth of 6 and 40 values a host"));
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, span: Span, depth: usize) -> Step<Node> {
        let Some((node, nodes, height)) = self.anchors.get(&id) else {
            let fix = "an anchor can be used only after the value that bears it has ended";
            return Err(Diagnostic::new(span, "this alias refers to the value it is part of", fix));
        };
        self.nodes += nodes;
        self.within_limits(span, depth + height)?;
        Ok(node.clone())
    }

    fn list(&mut self, span: Span, depth: usize) -> Step<Node> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, end) => {
                    return Ok(Node { span: through(span, end), content: Content::List(items) });
                }
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, span: Span, depth: usize) -> Step<Node> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Node> = Vec::new();
        loop {
            let (key, span) = match self.next()? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(text, ..), span) => (text.into_owned(), span),
                (_, span) => return Err(Diagnostic::new(span, "a key has to be a word", "write `key: value`")),
            };
            let (event, at) = self.next()?;
            let value = self.node(event, at, depth + 1)?;
            if key == "<<" {
                self.merge_source(value, span, &mut merged);
            } else if let Some(first) = entries.iter().find(|e| e.key == key) {
                let message = format!("key `{key}` is given twice, first on line {}", first.span.line);
                self.diagnostics.push(Diagnostic::new(span, message, "remove one of the two"));
            } else {
                entries.push(Entry { key, span, value });
            }
        }
        for source in merged {
            if let Content::Map(more) = source.content {
                for entry in more {
                    if !entries.iter().any(|e| e.key == entry.key) {
                        entries.push(entry);
                    }
                }
            }
        }
        let span = entries.first().map_or(span, |e| e.span);
        Ok(Node { span, content: Content::Map(entries) })
    }

    /// Collects what `<<` brings in: a mapping or a list of them.
    fn merge_source(&mut self, value: Node, span: Span, merged: &mut Vec<Node>) {
        match value.content {
            Content::Map(_) => merged.push(value),
            Content::List(items) if items.iter().all(|i| matches!(i.content, Content::Map(_))) => merged.extend(items),
            _ => {
                let fix = "write `<<: *name`, where `&name` stands before a mapping further up";
                self.diagnostics.push(Diagnostic::new(span, "`<<` takes the keys of another mapping", fix));
            }
        }
    }
}

fn place(span: &granit_parser::Span) -> Span {
    let one_line = span.start.line() == span.end.line();
    let length = if one_line { span.end.col().saturating_sub(span.start.col()).max(1) } else { usize::MAX };
    Span { line: span.start.line().max(1), column: span.start.col() + 1, length }
}

/// From the start of one place to the end of another, where both are on one line.
fn through(start: Span, end: Span) -> Span {
    let length = (end.column + end.length).saturating_sub(start.column);
    if start.line == end.line { Span { length, ..start } } else { start }
}

/// The first tab that indents a line, from a line on: the parser points at what stands before it.
fn indenting_tab(text: &str, line: usize) -> Option<Span> {
    let lines = text.lines().enumerate().skip(line - 1);
    let mut tabs = lines.filter_map(|(index, l)| {
        let column = l.chars().take_while(|c| *c == ' ').count() + 1;
        (l.chars().nth(column - 1) == Some('\t')).then_some(Span { line: index + 1, column, length: 1 })
    });
    tabs.next()
}

fn syntax(error: &granit_parser::ScanError, text: &str) -> Diagnostic {
    let marker = error.marker();
    let mut span = Span { line: marker.line().max(1), column: marker.col() + 1, length: 1 };
    let info = error.info();
    let info = info.lines().next().unwrap_or_default();
    let fix = if info.contains("tab") {
        span = indenting_tab(text, span.line).unwrap_or(span);
        "indent with blanks; YAML allows no tabs there"
    } else if info.contains("anchor") {
        "put `&name` before the value that `*name` stands for, further up"
    } else if info.contains("quot") || info.contains("end of stream") {
        "close what was opened: a quote, a `[` or a `{`"
    } else {
        "look at the indentation, and quote values that contain `: ` or ` #` or begin with one of *&!%@`{["
    };
    Diagnostic::new(span, format!("this is not valid YAML: {info}"), fix)
}
