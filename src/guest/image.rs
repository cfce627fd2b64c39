//! Templates: versioned, read-only, never half there.

use super::spec::ImageRef;
use crate::cluster::{ClusterError, ClusterPort, Document, Parent, Unread, decode, readable, update};
use crate::error::Failure;
use crate::inventory::Size;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The snapshot of a template that guests are cloned from.
pub const BASE: &str = "base";
/// State objects of templates, and disk images of their versions.
pub const PREFIX: &str = "image.";

/// A template and its versions. What is not in it is not there: a disk image that no template names belongs to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// The version new guests get; 0 while there is none.
    pub current: u32,
    /// Its versions, oldest first.
    pub versions: Vec<TemplateVersion>,
    /// Imports that are under way, or were killed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub importing: Vec<Importing>,
    /// Versions that are not offered while it is found out whether disks stand on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removing: Vec<Removing>,
}

/// A version of a template.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct TemplateVersion {
    /// Its number, from 1.
    pub version: u32,
    /// Its image in the guests' pool.
    pub image: String,
    /// Size of its disk.
    pub size: Size,
    /// SHA-256 of the file it came from, in hexadecimal.
    pub sha256: String,
    /// The file it came from.
    pub source: String,
    /// When it was imported.
    pub imported: jiff::Timestamp,
}

/// An import that has not offered its version yet. It is written before its disk image is begun, and an import whose entry is
/// gone offers nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Importing {
    /// The disk image it writes.
    pub image: String,
    /// The run, `WHO@WHERE pid N`.
    pub by: String,
    /// When it was last seen at work.
    pub seen: jiff::Timestamp,
}

/// A version that is being removed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Removing {
    /// The version.
    pub version: TemplateVersion,
    /// The version that new guests get in place of it, where it was the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<u32>,
}

impl Document for Template {
    const SCHEMA: &'static str = "rackhand.image/1";
}

impl Template {
    /// A template of this name without versions.
    pub fn empty(name: &str) -> Self {
        Template {
            name: name.to_owned(),
            current: 0,
            versions: Vec::new(),
            importing: Vec::new(),
            removing: Vec::new(),
        }
    }

    /// The state object of a template.
    pub fn object(name: &str) -> String {
        format!("{PREFIX}{name}")
    }

    /// The disk image of a version: no two imports can ever have the same.
    pub fn image_name(id: Uuid) -> String {
        format!("{PREFIX}{id}")
    }

    /// A version; the current one where none is named.
    pub fn version(&self, version: Option<u32>) -> Option<&TemplateVersion> {
        let wanted = version.unwrap_or(self.current);
        self.versions.iter().find(|v| v.version == wanted)
    }

    /// All disk images that belong to it.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        let versions = self.versions.iter().chain(self.removing.iter().map(|r| &r.version)).map(|v| v.image.as_str());
        versions.chain(self.importing.iter().map(|i| i.image.as_str()))
    }

    /// Itself, or nothing where nothing is left of it.
    pub(super) fn unless_empty(self) -> Option<Self> {
        let empty = self.versions.is_empty() && self.importing.is_empty() && self.removing.is_empty();
        (!empty).then_some(self)
    }
}

impl TemplateVersion {
    /// What guests are cloned from.
    pub fn base(&self) -> Parent {
        Parent { image: self.image.clone(), snapshot: BASE.to_owned() }
    }
}

/// A template as the operator names it: `NAME` or `NAME@VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateName {
    /// Its name.
    pub name: String,
    /// A version of it.
    pub version: Option<u32>,
}

impl std::str::FromStr for TemplateName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (name, version) = match s.split_once('@') {
            Some((name, version)) => {
                let number = version.strip_prefix('v').unwrap_or(version).parse();
                (name, Some(number.map_err(|_| format!("`{version}` is not a version number"))?))
            }
            None => (s, None),
        };
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        // Disk images of templates are named by ids.
        if name.is_empty() || name.len() > 40 || !name.chars().all(fine) || Uuid::parse_str(name).is_ok() {
            return Err(format!("`{name}` is not an image name: lower-case letters, digits, `-` and `_`, at most 40"));
        }
        Ok(TemplateName { name: name.to_owned(), version })
    }
}

impl std::fmt::Display for TemplateName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        self.version.map_or(Ok(()), |version| write!(f, "@{version}"))
    }
}

/// All templates that offer a version, by name, and the state objects that cannot be read.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn list(port: &dyn ClusterPort) -> Result<(Vec<Template>, Vec<Unread>), Failure> {
    let (mut templates, unread) = readable::<Template>(port, PREFIX).await?;
    templates.retain(|template| !template.versions.is_empty());
    Ok((templates, unread))
}

/// A template that offers a version.
///
/// # Errors
/// When there is none of this name, or its state object cannot be read.
pub async fn get(port: &dyn ClusterPort, name: &str) -> Result<Template, Failure> {
    let object = Template::object(name);
    let found = match port.get(&object).await? {
        Some(found) => decode::<Template>(&object, &found.data).map(Some).map_err(|error| {
            Failure::from(error).hint(format!("`rackhand image remove {name}` clears it away, if no disks stand on it"))
        })?,
        None => None,
    };
    found
        .filter(|template| !template.versions.is_empty())
        .ok_or_else(|| Failure::usage(format!("no image `{name}`")).hint("see the images with `rackhand image list`"))
}

/// A version of a template.
///
/// # Errors
/// When there is none.
pub async fn find(port: &dyn ClusterPort, name: &TemplateName) -> Result<(ImageRef, TemplateVersion), Failure> {
    let template = get(port, &name.name).await?;
    let found = template.version(name.version).cloned().ok_or_else(|| {
        let has: Vec<String> = template.versions.iter().map(|v| v.version.to_string()).collect();
        let wanted = name.version.unwrap_or(template.current);
        Failure::usage(format!("image {} has no version {wanted}; it has {}", name.name, has.join(", ")))
    })?;
    Ok((ImageRef { name: template.name, version: found.version }, found))
}

/// Changes a template by compare-and-swap.
pub(super) async fn change<R: Send, E: From<ClusterError> + Send>(
    port: &dyn ClusterPort,
    name: &str,
    how: impl Fn(Option<Template>) -> Result<(Option<Template>, R), E> + Send + Sync,
) -> Result<R, E> {
    update(port, &Template::object(name), how).await
}

/// Makes a version the one that new guests get.
///
/// # Errors
/// When there is no such version.
pub async fn publish(port: &dyn ClusterPort, name: &str, version: u32) -> Result<bool, Failure> {
    find(port, &TemplateName { name: name.to_owned(), version: Some(version) }).await?;
    let changed = change(port, name, |found: Option<Template>| {
        let Some(template) = found.filter(|t| t.version(Some(version)).is_some()) else {
            return Err(ClusterError::NotFound(format!("version {version} of image {name} was removed meanwhile")));
        };
        let changed = template.current != version;
        Ok((Some(Template { current: version, ..template }), changed))
    });
    Ok(changed.await?)
}

/// A template with two versions, for tests.
#[cfg(test)]
pub(crate) async fn sample(port: &crate::cluster::FakeCluster, name: &str) -> TemplateName {
    let mut template = Template::empty(name);
    for version in 1..=2 {
        let image = Template::image_name(Uuid::new_v5(&Uuid::NAMESPACE_DNS, format!("{name}-{version}").as_bytes()));
        port.image_create(&image, 1 << 25).await.unwrap();
        port.snapshot_create(&image, BASE, true).await.unwrap();
        template.current = version;
        template.versions.push(TemplateVersion {
            version,
            image,
            size: Size::mib(32),
            sha256: "00".into(),
            source: "tiny.raw".into(),
            imported: jiff::Timestamp::UNIX_EPOCH,
        });
    }
    port.create(&Template::object(name), &crate::cluster::encode(&template).unwrap()).await.unwrap();
    name.parse().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::FakeCluster;
    use crate::error::Kind;

    #[tokio::test]
    async fn a_published_version_is_what_new_guests_get() {
        let port = FakeCluster::new();
        let name = sample(&port, "tiny").await;
        assert_eq!(find(&port, &name).await.unwrap().0.version, 2);
        assert!(publish(&port, "tiny", 1).await.unwrap());
        assert!(!publish(&port, "tiny", 1).await.unwrap());
        assert_eq!(find(&port, &name).await.unwrap().0.version, 1);
        assert_eq!(publish(&port, "tiny", 9).await.unwrap_err().kind, Kind::Usage);
    }

    #[tokio::test]
    async fn one_unreadable_object_does_not_hide_the_others() {
        let port = FakeCluster::new();
        let name = sample(&port, "tiny").await;
        for (bad, text) in [("newer", r#"{"schema":"rackhand.image/9"}"#), ("broken", "{"), ("empty", "")] {
            port.create(&Template::object(bad), text).await.unwrap();
            let error = get(&port, bad).await.unwrap_err();
            assert!(error.to_string().contains(&format!("image.{bad}")), "{error}");
            assert!(error.hints[0].contains("image remove"), "{error:?}");
        }
        let (templates, unread) = list(&port).await.unwrap();
        assert_eq!(templates.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["tiny"]);
        let names: Vec<&str> = unread.iter().map(|u| u.object.as_str()).collect();
        assert_eq!(names, ["image.broken", "image.empty", "image.newer"]);
        find(&port, &name).await.unwrap();
    }

    #[test]
    fn names_with_versions_are_read() {
        let name: TemplateName = "debian-12@v3".parse().unwrap();
        assert_eq!((name.name.as_str(), name.version), ("debian-12", Some(3)));
        assert_eq!(name.to_string(), "debian-12@3");
        for bad in ["", "a b", "x@y", "A", "a/b", "6f2c0b8e-3f9d-4a43-9f5e-0f9f1c7b2a11"] {
            assert!(bad.parse::<TemplateName>().is_err(), "{bad}");
        }
    }
}
