//! How versions of templates come and go.
//!
//! Each step is one compare-and-swap of the template's state object, and only what no template names is ever deleted. So a run
//! that is killed anywhere leaves one of three things: an entry of an import, which a later run takes away once it is older
//! than an import may be silent; a hidden version, which removing it again settles; or a disk image without an owner, which a
//! later run deletes.

use super::image::{BASE, Importing, PREFIX, Removing, Template, TemplateName, TemplateVersion, change};
use crate::cluster::{ClusterError, ClusterPort, decode, readable};
use crate::error::{Failure, Kind};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use uuid::Uuid;

/// How long an import may show no sign of life: longer than a conversion takes whose operator is gone. Taking its entry away
/// too early does no harm but to that import, which then offers nothing.
const SILENCE: SignedDuration = SignedDuration::from_hours(5);

/// Announces an import, before its disk image is begun.
///
/// # Errors
/// When the cluster cannot be asked.
pub(super) async fn begin(port: &dyn ClusterPort, name: &str, entry: &Importing) -> Result<(), Failure> {
    let added = change(port, name, |found: Option<Template>| {
        let mut template = found.unwrap_or_else(|| Template::empty(name));
        template.importing.push(entry.clone());
        Ok::<_, ClusterError>((Some(template), ()))
    });
    Ok(added.await?)
}

/// Shows that an import is alive; tells whether it is still announced.
///
/// # Errors
/// When the cluster cannot be asked.
pub(super) async fn renew(
    port: &dyn ClusterPort,
    name: &str,
    image: &str,
    now: Timestamp,
) -> Result<bool, ClusterError> {
    change(port, name, |found: Option<Template>| {
        let Some(mut template) = found else { return Ok((None, false)) };
        let entry = template.importing.iter_mut().find(|entry| entry.image == image);
        let there = entry.map(|entry| entry.seen = entry.seen.max(now)).is_some();
        Ok((Some(template), there))
    })
    .await
}

/// Offers the version of an announced import: from now on new guests get it. `version` makes it from its number.
///
/// # Errors
/// When the import was taken for dead and its entry taken away, or the cluster cannot be asked.
pub(super) async fn offer(
    port: &dyn ClusterPort,
    name: &str,
    image: &str,
    version: impl Fn(u32) -> TemplateVersion + Send + Sync,
) -> Result<TemplateVersion, Failure> {
    change(port, name, |found: Option<Template>| {
        let gone = || Failure::failed("another run took this import for dead and cleared it away");
        let mut template = found.ok_or_else(gone)?;
        let at = template.importing.iter().position(|entry| entry.image == image).ok_or_else(gone)?;
        template.importing.remove(at);
        let numbers = template.versions.iter().chain(template.removing.iter().map(|r| &r.version)).map(|v| v.version);
        let version = version(numbers.max().unwrap_or(0) + 1);
        template.current = version.version;
        template.versions.push(version.clone());
        Ok((Some(template), version))
    })
    .await
}

/// Takes back what an import announced and wrote; what became a version stays.
///
/// # Errors
/// When the cluster cannot be asked; a later run clears it away then.
pub(super) async fn abandon(port: &dyn ClusterPort, name: &str, image: &str) -> Result<(), Failure> {
    let offered = change(port, name, |found: Option<Template>| {
        let Some(mut template) = found else { return Ok((None, false)) };
        template.importing.retain(|entry| entry.image != image);
        let offered = template.images().any(|other| other == image);
        Ok::<_, ClusterError>((template.unless_empty(), offered))
    });
    if offered.await? { Ok(()) } else { discard(port, image).await }
}

/// Clears away what killed runs left; tells the disk images that are gone.
///
/// # Errors
/// When the cluster cannot be asked.
pub(super) async fn sweep(port: &dyn ClusterPort, now: Timestamp) -> Result<Vec<String>, Failure> {
    // First the disk images, then the templates: an import announces itself before it makes an image.
    let images = port.images().await?;
    let (templates, unread) = readable::<Template>(port, PREFIX).await?;
    let mut owned: BTreeSet<String> = BTreeSet::new();
    for template in &templates {
        owned.extend(template.images().map(str::to_owned));
        for entry in template.importing.iter().filter(|entry| now.duration_since(entry.seen) > SILENCE) {
            if expire(port, &template.name, entry).await? {
                owned.remove(&entry.image);
            }
        }
        for removing in &template.removing {
            settle(port, &template.name, removing).await?;
        }
    }
    // An object that cannot be read may name any of them.
    if !unread.is_empty() {
        return Ok(Vec::new());
    }
    let mut cleared = Vec::new();
    let unowned = |image: &&String| {
        let id = image.strip_prefix(PREFIX).is_some_and(|id| Uuid::parse_str(id).is_ok());
        id && !owned.contains(*image)
    };
    for image in images.iter().filter(unowned) {
        match discard(port, image).await {
            Ok(()) => cleared.push(image.clone()),
            // Open still, or disks stand on it: later.
            Err(failure) if failure.kind == Kind::Busy => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(cleared)
}

/// Takes a dead import's entry away, if it still is what was seen and its disk image is not being written.
async fn expire(port: &dyn ClusterPort, name: &str, dead: &Importing) -> Result<bool, Failure> {
    match port.image_users(&dead.image).await {
        Ok(users) if !users.watchers.is_empty() => return Ok(false),
        Ok(_) | Err(ClusterError::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let gone = change(port, name, |found: Option<Template>| {
        let Some(mut template) = found else { return Ok((None, true)) };
        template.importing.retain(|entry| entry != dead);
        let gone = !template.images().any(|image| image == dead.image);
        Ok::<_, ClusterError>((template.unless_empty(), gone))
    });
    Ok(gone.await?)
}

/// Whether there is anything of this name that [`remove`] could remove.
///
/// # Errors
/// When there is not, or the cluster cannot be asked.
pub async fn removable(port: &dyn ClusterPort, name: &TemplateName) -> Result<(), Failure> {
    let object = Template::object(&name.name);
    let Some(found) = port.get(&object).await? else { return Err(missing(name, &[])) };
    match decode::<Template>(&object, &found.data) {
        Ok(template) if doomed(&template, name).is_empty() => Err(missing(name, &template.versions)),
        Err(error) if name.version.is_some() => Err(Failure::from(error)
            .hint(format!("`rackhand image remove {}` clears all of it away, if no disks stand on it", name.name))),
        _ => Ok(()),
    }
}

fn missing(name: &TemplateName, versions: &[TemplateVersion]) -> Failure {
    let has: Vec<String> = versions.iter().map(|v| v.version.to_string()).collect();
    match name.version {
        Some(wanted) if !has.is_empty() => {
            Failure::usage(format!("image {} has no version {wanted}; it has {}", name.name, has.join(", ")))
        }
        _ => Failure::usage(format!("no image `{}`", name.name)).hint("see the images with `rackhand image list`"),
    }
}

/// Numbers of the versions that a name means, hidden ones too.
fn doomed(template: &Template, name: &TemplateName) -> Vec<u32> {
    let all = template.versions.iter().chain(template.removing.iter().map(|r| &r.version)).map(|v| v.version);
    all.filter(|number| name.version.is_none_or(|wanted| wanted == *number)).collect()
}

/// Removes a version, or all of them; refused while disks stand on one. An image whose state object cannot be read goes as a
/// whole.
///
/// # Errors
/// When there is no such version, or disks were cloned from it.
pub async fn remove(port: &dyn ClusterPort, name: &TemplateName) -> Result<Vec<u32>, Failure> {
    let object = Template::object(&name.name);
    if let Some(found) = port.get(&object).await?
        && let Err(error) = decode::<Template>(&object, &found.data)
    {
        tracing::info!(%error, "removes an image that cannot be read");
        return remove_unread(port, &name.name, &found).await.map(|()| Vec::new());
    }
    // First it is no longer offered, then it is looked at: no new disk can come to stand on it unseen.
    let hidden = hide(port, name).await?;
    if hidden.is_empty() {
        return Err(missing(name, &[]));
    }
    let mut clones = Vec::new();
    for removing in &hidden {
        let version = &removing.version;
        clones.extend(children(port, &version.image).await?.into_iter().map(|c| format!("{c} (v{})", version.version)));
    }
    if !clones.is_empty() {
        unhide(port, &name.name, &hidden).await?;
        let text = format!("image {} is in use: {} disks stand on it: {}", name.name, clones.len(), clones.join(", "));
        return Err(Failure::refused(text).hint("delete those guests first, or keep the image"));
    }
    drop_hidden(port, &name.name, &hidden).await?;
    for removing in &hidden {
        let (image, version) = (&removing.version.image, removing.version.version);
        discard(port, image).await.map_err(|failure| match failure.kind {
            Kind::Busy => Failure::msg(
                Kind::Busy,
                format!("version {version} of image {} is not offered any more, but {failure}", name.name),
            )
            .hint("the disk image is deleted by a later `image import` or `image remove`, once nothing uses it"),
            _ => failure,
        })?;
    }
    Ok(hidden.iter().map(|r| r.version.version).collect())
}

/// Hides versions that are to be removed; tells which, those included that an earlier run hid.
async fn hide(port: &dyn ClusterPort, name: &TemplateName) -> Result<Vec<Removing>, Failure> {
    let hidden = change(port, &name.name, |found: Option<Template>| {
        let Some(mut template) = found else { return Ok((None, Vec::new())) };
        let numbers = doomed(&template, name);
        let (go, stay): (Vec<_>, Vec<_>) = template.versions.into_iter().partition(|v| numbers.contains(&v.version));
        template.versions = stay;
        let newest = template.versions.iter().map(|v| v.version).max().unwrap_or(0);
        let current = template.current;
        if go.iter().any(|v| v.version == current) {
            template.current = newest;
        }
        let instead = |v: &TemplateVersion| (v.version == current).then_some(newest);
        template.removing.extend(go.into_iter().map(|v| Removing { instead: instead(&v), version: v }));
        let hidden = template.removing.iter().filter(|r| numbers.contains(&r.version.version)).cloned().collect();
        Ok::<_, ClusterError>((Some(template), hidden))
    });
    Ok(hidden.await?)
}

/// Offers hidden versions again.
async fn unhide(port: &dyn ClusterPort, name: &str, hidden: &[Removing]) -> Result<(), Failure> {
    let unhidden = change(port, name, |found: Option<Template>| {
        let Some(mut template) = found else { return Ok((None, ())) };
        // What another run has settled meanwhile is not hidden any more.
        let (back, rest) = template.removing.into_iter().partition(|r| hidden.contains(r));
        template.removing = rest;
        for removing in back {
            if removing.instead == Some(template.current) {
                template.current = removing.version.version;
            }
            template.versions.push(removing.version);
        }
        template.versions.sort_by_key(|v| v.version);
        Ok::<_, ClusterError>((Some(template), ()))
    });
    Ok(unhidden.await?)
}

/// Strikes hidden versions out for good: their disk images belong to nothing from then on.
async fn drop_hidden(port: &dyn ClusterPort, name: &str, hidden: &[Removing]) -> Result<(), Failure> {
    change(port, name, |found: Option<Template>| {
        let Some(mut template) = found else { return Ok((None, ())) };
        template.removing.retain(|r| !hidden.contains(r));
        if let Some(back) = hidden.iter().find(|r| template.versions.contains(&r.version)) {
            let text = format!("version {} of image {name} is offered again by another run", back.version.version);
            return Err(Failure::msg(Kind::Busy, text).hint("run the same command again"));
        }
        Ok((template.unless_empty(), ()))
    })
    .await
}

/// Ends a removal that was killed: offers the version again where disks stand on it, else strikes it out.
async fn settle(port: &dyn ClusterPort, name: &str, removing: &Removing) -> Result<(), Failure> {
    let hidden = std::slice::from_ref(removing);
    if children(port, &removing.version.image).await?.is_empty() {
        drop_hidden(port, name, hidden).await
    } else {
        unhide(port, name, hidden).await
    }
}

/// Names of the disks that stand on an image.
async fn children(port: &dyn ClusterPort, image: &str) -> Result<Vec<String>, Failure> {
    match port.image_children(image).await {
        Err(ClusterError::NotFound(_)) => Ok(Vec::new()),
        other => Ok(other?),
    }
}

/// Removes a state object that cannot be read, with the disk images it names as far as that can be seen.
async fn remove_unread(port: &dyn ClusterPort, name: &str, found: &crate::cluster::Object) -> Result<(), Failure> {
    let images: BTreeSet<&str> = found
        .data
        .split(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
        .filter(|word| word.starts_with(PREFIX) && word.len() > PREFIX.len())
        .collect();
    let mut clones = Vec::new();
    for image in &images {
        clones.extend(children(port, image).await?);
    }
    if !clones.is_empty() {
        let text =
            format!("image {name} cannot be read, and {} disks stand on it: {}", clones.len(), clones.join(", "));
        return Err(Failure::refused(text).hint("delete those guests first, or use the version that wrote it"));
    }
    port.remove(&Template::object(name), found.version).await?;
    for image in images {
        discard(port, image).await?;
    }
    Ok(())
}

/// Deletes a disk image with its snapshot; one that is gone is not an error.
async fn discard(port: &dyn ClusterPort, image: &str) -> Result<(), Failure> {
    let gone = |result: Result<(), ClusterError>| match result {
        Err(ClusterError::NotFound(_)) => Ok(()),
        other => other.map_err(Failure::from),
    };
    gone(port.snapshot_remove(image, BASE).await)?;
    gone(port.image_remove(image).await.map(drop))
}

#[cfg(test)]
mod tests;
