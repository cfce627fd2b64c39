//! The JSON Schema of the file: what editors complete from, and what its shape is checked against.

use super::Inventory;
use serde_json::Value;

/// The JSON Schema of an inventory file.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Inventory);
    schema.insert("title".to_owned(), "rackhand inventory".into());
    schema.to_value()
}

/// What is expected at a place.
#[derive(Debug)]
pub(super) enum Shape<'s> {
    /// A mapping with fixed keys.
    Object { properties: &'s serde_json::Map<String, Value>, required: Vec<&'s str> },
    /// A mapping with names as keys.
    Names(&'s Value),
    /// A list.
    List { items: &'s Value, min: u64 },
    /// One of these words.
    Words(Vec<&'s str>),
    /// A mapping with exactly one of these keys.
    OneOf(Vec<(&'s str, &'s Value)>),
    /// A text, of a format.
    Text(Option<&'s str>),
    /// A whole number within bounds.
    Integer { min: u64, max: u64 },
    /// A number.
    Number,
    /// Nothing this file knows: a mistake of this program, not of the inventory.
    Unknown,
}

/// A schema document that can be asked for the shape at a place.
#[derive(Debug)]
pub(super) struct Schema(Value);

impl Schema {
    pub fn new() -> Self {
        Schema(schema())
    }

    pub fn root(&self) -> &Value {
        &self.0
    }

    /// Follows references, and drops the `null` that optional values may be.
    fn resolve<'s>(&'s self, mut schema: &'s Value) -> &'s Value {
        loop {
            if let Some(target) = schema["$ref"].as_str() {
                schema = self.0.pointer(target.trim_start_matches('#')).unwrap_or(&Value::Null);
            } else if let Some(options) = schema["anyOf"].as_array() {
                schema = options.iter().find(|o| o["type"] != "null").unwrap_or(&Value::Null);
            } else {
                return schema;
            }
        }
    }

    /// What is expected where this schema stands.
    pub fn schema_check<'s>(&'s self, schema: &'s Value) -> Shape<'s> {
        let schema = self.resolve(schema);
        if let Some(options) = schema["oneOf"].as_array() {
            let words: Vec<&str> = options.iter().filter_map(|o| o["const"].as_str()).collect();
            if words.len() == options.len() {
                return Shape::Words(words);
            }
            let only = |o: &'s Value| o["properties"].as_object().and_then(|p| p.iter().next());
            return Shape::OneOf(options.iter().filter_map(only).map(|(k, v)| (k.as_str(), v)).collect());
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|k| *k != "null"),
            kind => kind.as_str(),
        };
        match kind {
            Some("object") => match schema["properties"].as_object() {
                Some(properties) => {
                    let required = schema["required"].as_array().into_iter().flatten();
                    Shape::Object { properties, required: required.filter_map(Value::as_str).collect() }
                }
                None => Shape::Names(&schema["additionalProperties"]),
            },
            Some("array") => {
                Shape::List { items: &schema["items"], min: schema["minItems"].as_u64().unwrap_or_default() }
            }
            Some("string") => Shape::Text(schema["format"].as_str()),
            Some("integer") => {
                let widest = if schema["format"] == "uint32" { u64::from(u32::MAX) } else { u64::MAX };
                let max = schema["maximum"].as_u64().unwrap_or(widest);
                Shape::Integer { min: schema["minimum"].as_u64().unwrap_or_default(), max }
            }
            Some("number") => Shape::Number,
            _ => Shape::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(schema: &Schema, at: &Value, seen: &mut usize) {
        *seen += 1;
        match schema.schema_check(at) {
            Shape::Unknown => panic!("no shape for {at}"),
            Shape::Object { properties, .. } => {
                properties.iter().for_each(|(key, p)| {
                    assert!(p["description"].is_string(), "`{key}` has no description");
                    visit(schema, p, seen);
                });
            }
            Shape::OneOf(options) => options.iter().for_each(|(_, p)| visit(schema, p, seen)),
            Shape::Names(inner) | Shape::List { items: inner, .. } => visit(schema, inner, seen),
            Shape::Words(_) | Shape::Text(_) | Shape::Integer { .. } | Shape::Number => {}
        }
    }

    #[test]
    fn every_part_of_the_model_has_a_shape_and_a_description() {
        let schema = Schema::new();
        let mut seen = 0;
        visit(&schema, schema.root(), &mut seen);
        assert!(seen > 60, "{seen}");
    }
}
