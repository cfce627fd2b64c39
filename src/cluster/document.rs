//! State objects as typed documents.

use super::{ClusterError, ClusterPort, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Tries of a change that others race with; each lost race means that another run got on.
const TRIES: usize = 50;

/// A typed state object; its JSON carries the schema, so an older tool refuses a newer object.
pub trait Document: Serialize + DeserializeOwned + Send + Sync {
    /// Name and version of the format, for example `rackhand.guest/1`.
    const SCHEMA: &'static str;
}

/// The JSON of a document, with its schema.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn encode<T: Document>(value: &T) -> Result<String, ClusterError> {
    let malformed = |e: serde_json::Error| ClusterError::Malformed(format!("cannot write {}: {e}", T::SCHEMA));
    let mut fields = serde_json::Map::new();
    fields.insert("schema".to_owned(), T::SCHEMA.into());
    match serde_json::to_value(value).map_err(malformed)? {
        serde_json::Value::Object(own) => fields.extend(own),
        other => drop(fields.insert("value".to_owned(), other)),
    }
    serde_json::to_string(&fields).map_err(malformed)
}

/// Reads a document back.
///
/// # Errors
/// When it is no JSON, has another format, or fields that a newer version wrote.
pub fn decode<T: Document>(name: &str, text: &str) -> Result<T, ClusterError> {
    let malformed = |e: serde_json::Error| ClusterError::Malformed(format!("state object {name}: {e}"));
    let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).map_err(malformed)?;
    let schema = fields.remove("schema");
    match schema.as_ref().and_then(serde_json::Value::as_str) {
        Some(schema) if schema == T::SCHEMA => {
            let mut unknown = Vec::new();
            let fields = serde_json::Value::Object(fields);
            let value = serde_ignored::deserialize(fields, |path| unknown.push(path.to_string())).map_err(malformed)?;
            // Written back, it would lack them.
            match unknown.as_slice() {
                [] => Ok(value),
                fields => Err(ClusterError::Malformed(format!(
                    "state object {name} has the field {}, which this version of rackhand does not know: use the version \
                     that wrote it",
                    fields.join(", ")
                ))),
            }
        }
        other => Err(ClusterError::Malformed(format!(
            "state object {name} has format {}, this version of rackhand reads {}",
            other.unwrap_or("unknown"),
            T::SCHEMA
        ))),
    }
}

/// Reads a document with its version.
///
/// # Errors
/// When the cluster cannot be asked or the object has another format.
pub async fn fetch<T: Document>(port: &dyn ClusterPort, name: &str) -> Result<Option<(T, Version)>, ClusterError> {
    match port.get(name).await? {
        Some(object) => Ok(Some((decode(name, &object.data)?, object.version))),
        None => Ok(None),
    }
}

/// A state object that this version cannot read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// Its name.
    pub object: String,
    /// Why it cannot be read.
    pub why: String,
}

/// Reads all documents whose name begins with `prefix`; one that cannot be read does not hide the others.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn readable<T: Document>(
    port: &dyn ClusterPort,
    prefix: &str,
) -> Result<(Vec<T>, Vec<Unread>), ClusterError> {
    let (mut read, mut unread) = (Vec::new(), Vec::new());
    for object in port.list(prefix).await? {
        match decode(&object.name, &object.data) {
            Ok(value) => read.push(value),
            Err(error) => unread.push(Unread { object: object.name, why: error.to_string() }),
        }
    }
    Ok((read, unread))
}

/// Changes a document by compare-and-swap: `change` gets what is there (or nothing) and returns what shall be there
/// (or nothing, to remove it). It runs again when another run was quicker.
///
/// # Errors
/// What `change` returns, and when the cluster cannot be asked.
pub async fn update<T, R, E>(
    port: &dyn ClusterPort,
    name: &str,
    change: impl Fn(Option<T>) -> Result<(Option<T>, R), E> + Send + Sync,
) -> Result<R, E>
where
    T: Document,
    R: Send,
    E: From<ClusterError> + Send,
{
    for _ in 0..TRIES {
        let found = fetch::<T>(port, name).await?;
        let version = found.as_ref().map(|(_, version)| *version);
        let before = found.as_ref().map(|(value, _)| encode(value)).transpose()?;
        let (after, result) = change(found.map(|(value, _)| value))?;
        let written = match (after, version) {
            (None, None) => Ok(()),
            (None, Some(version)) => port.remove(name, version).await,
            (Some(value), None) => port.create(name, &encode(&value)?).await.map(drop),
            (Some(value), Some(version)) => {
                let text = encode(&value)?;
                if Some(&text) == before.as_ref() { Ok(()) } else { port.replace(name, &text, version).await.map(drop) }
            }
        };
        match written {
            Ok(()) => return Ok(result),
            Err(ClusterError::Conflict(_) | ClusterError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ClusterError::Busy(format!("state object {name} was changed by other runs {TRIES} times meanwhile")).into())
}
