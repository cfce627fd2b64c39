//! Templates: versioned, read-only, never half there.

use super::rack::Rack;
use super::spec::ImageRef;
use crate::cluster::{ClusterError, ClusterPort, Document, Parent, all, fetch, update};
use crate::error::{Failure, Kind};
use crate::inventory::Size;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Lease of the lock around changes, which take milliseconds each; removing a large image takes seconds.
const LEASE: Duration = Duration::from_secs(120);
/// The snapshot of a template that guests are cloned from.
pub const BASE: &str = "base";

/// A template and its versions. It is written when a version is complete: what is not in it is not there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// The version new guests get.
    pub current: u32,
    /// Its versions, oldest first.
    pub versions: Vec<TemplateVersion>,
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

impl Document for Template {
    const SCHEMA: &'static str = "rackhand.image/1";
}

impl Template {
    /// The state object of a template.
    pub fn object(name: &str) -> String {
        format!("image.{name}")
    }

    /// The disk image of a version.
    pub fn image_name(name: &str, version: u32) -> String {
        format!("image.{name}.v{version}")
    }

    /// A version; the current one where none is named.
    pub fn version(&self, version: Option<u32>) -> Option<&TemplateVersion> {
        let wanted = version.unwrap_or(self.current);
        self.versions.iter().find(|v| v.version == wanted)
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
                (name, Some(number.map_err(|_| format!("`{version}` is no version number"))?))
            }
            None => (s, None),
        };
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 40 || !name.chars().all(fine) {
            return Err(format!("`{name}` is no image name: lower-case letters, digits, `-` and `_`, at most 40"));
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

/// All templates, by name.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn list(port: &dyn ClusterPort) -> Result<Vec<Template>, Failure> {
    all(port, "image.").await.map_err(Failure::from)
}

/// A template.
///
/// # Errors
/// When there is none of this name.
pub async fn get(port: &dyn ClusterPort, name: &str) -> Result<Template, Failure> {
    let found = fetch::<Template>(port, &Template::object(name)).await?;
    found
        .map(|(template, _)| template)
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

/// Makes a version the one that new guests get.
///
/// # Errors
/// When there is no such version.
pub async fn publish(port: &dyn ClusterPort, name: &str, version: u32) -> Result<bool, Failure> {
    find(port, &TemplateName { name: name.to_owned(), version: Some(version) }).await?;
    update(port, &Template::object(name), |found: Option<Template>| {
        let Some(template) = found else { return Err(ClusterError::NotFound(format!("image {name} is gone"))) };
        let changed = template.current != version;
        Ok((Some(Template { current: version, ..template }), changed))
    })
    .await
    .map_err(Failure::from)
}

/// Does something to a template that nobody else is changing meanwhile.
pub(super) async fn locked<T>(
    rack: &Rack,
    name: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let lock = format!("lock.image.{name}");
    rack.port().lock(&lock, &rack.run.id, &rack.run.by, LEASE).await.map_err(|e| match e {
        ClusterError::Busy(by) => Failure::msg(Kind::Busy, format!("image {name} is being changed by {by}")),
        other => other.into(),
    })?;
    let outcome = work.await;
    if let Err(error) = rack.port().unlock(&lock, &rack.run.id).await {
        tracing::info!(%error, name, "the lock frees itself");
    }
    outcome
}

/// Removes a version, or all of them; refused while guests stand on one.
///
/// # Errors
/// When there is no such version, guests were cloned from it, or it is being imported.
pub async fn remove(rack: &Rack, name: &TemplateName) -> Result<Vec<u32>, Failure> {
    // An import may give a new version the number of one that is being removed.
    locked(rack, &name.name, take_away(rack.port(), name)).await
}

async fn take_away(port: &dyn ClusterPort, name: &TemplateName) -> Result<Vec<u32>, Failure> {
    let template = get(port, &name.name).await?;
    let doomed: Vec<TemplateVersion> = match name.version {
        Some(_) => vec![find(port, name).await?.1],
        None => template.versions.clone(),
    };
    let mut clones = Vec::new();
    for version in &doomed {
        match port.image_children(&version.image).await {
            Ok(children) => clones.extend(children.into_iter().map(|child| format!("{child} (v{})", version.version))),
            Err(ClusterError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !clones.is_empty() {
        let text = format!("image {} is in use: {} disks stand on it: {}", name.name, clones.len(), clones.join(", "));
        return Err(Failure::refused(text).hint("delete those guests first, or keep the image"));
    }
    let numbers: Vec<u32> = doomed.iter().map(|v| v.version).collect();
    // First it is no longer offered, then it goes: nobody finds a half of it.
    hide(port, &name.name, &numbers).await?;
    for version in &doomed {
        discard(port, &version.image).await?;
    }
    Ok(numbers)
}

async fn hide(port: &dyn ClusterPort, name: &str, numbers: &[u32]) -> Result<(), ClusterError> {
    update(port, &Template::object(name), |found: Option<Template>| {
        let Some(mut template) = found else { return Ok((None, ())) };
        template.versions.retain(|v| !numbers.contains(&v.version));
        let Some(newest) = template.versions.last().map(|v| v.version) else { return Ok((None, ())) };
        if numbers.contains(&template.current) {
            template.current = newest;
        }
        Ok((Some(template), ()))
    })
    .await
}

/// Removes a template's disk image with its snapshot; one that is gone is no error.
///
/// # Errors
/// When it is in use.
pub async fn discard(port: &dyn ClusterPort, image: &str) -> Result<(), Failure> {
    let gone = |result: Result<(), ClusterError>| match result {
        Err(ClusterError::NotFound(_)) => Ok(()),
        Err(ClusterError::Busy(text)) => Err(Failure::msg(Kind::Busy, text)),
        other => other.map_err(Failure::from),
    };
    gone(port.snapshot_remove(image, BASE).await)?;
    gone(port.image_remove(image).await.map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{FakeCluster, Keys, encode};

    async fn with_template(port: &FakeCluster) -> TemplateName {
        let version = |n: u32| TemplateVersion {
            version: n,
            image: Template::image_name("tiny", n),
            size: Size::mib(32),
            sha256: "00".into(),
            source: "tiny.raw".into(),
            imported: jiff::Timestamp::UNIX_EPOCH,
        };
        for n in 1..=2 {
            port.image_create(&version(n).image, 1 << 25).await.unwrap();
            port.snapshot_create(&version(n).image, BASE, true).await.unwrap();
        }
        let template = Template { name: "tiny".into(), current: 2, versions: vec![version(1), version(2)] };
        port.create(&Template::object("tiny"), &encode(&template).unwrap()).await.unwrap();
        "tiny".parse().unwrap()
    }

    #[tokio::test]
    async fn an_image_with_guests_on_it_stays() {
        let port = FakeCluster::new();
        let name = with_template(&port).await;
        let (_, version) = find(&port, &name).await.unwrap();
        port.image_clone(&version.base(), "vm.1.disk0", 0, &Keys::new()).await.unwrap();
        let failure = take_away(&port, &name).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Refused);
        assert_eq!(failure.to_string(), "image tiny is in use: 1 disks stand on it: vm.1.disk0 (v2)");
        assert_eq!(take_away(&port, &"tiny@1".parse().unwrap()).await.unwrap(), [1]);
        port.image_remove("vm.1.disk0").await.unwrap();
        assert_eq!(take_away(&port, &name).await.unwrap(), [2]);
        assert!(get(&port, "tiny").await.is_err());
        assert!(port.images().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_published_version_is_what_new_guests_get() {
        let port = FakeCluster::new();
        let name = with_template(&port).await;
        assert_eq!(find(&port, &name).await.unwrap().0.version, 2);
        assert!(publish(&port, "tiny", 1).await.unwrap());
        assert!(!publish(&port, "tiny", 1).await.unwrap());
        assert_eq!(find(&port, &name).await.unwrap().0.version, 1);
        assert_eq!(publish(&port, "tiny", 9).await.unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn names_with_versions_are_read() {
        let name: TemplateName = "debian-12@v3".parse().unwrap();
        assert_eq!((name.name.as_str(), name.version), ("debian-12", Some(3)));
        assert_eq!(name.to_string(), "debian-12@3");
        for bad in ["", "a b", "x@y", "A", "a/b"] {
            assert!(bad.parse::<TemplateName>().is_err(), "{bad}");
        }
    }
}
