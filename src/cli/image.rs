//! `rackhand image`.

use super::Context;
use crate::cluster::Unread;
use crate::error::Failure;
use crate::guest::image::{self, Template, TemplateName};
use crate::guest::{Import, import, offer, shown_source};
use crate::ui::Table;
use clap::{Args, Subcommand};
use serde::Serialize;

/// Import, list and remove the images that guests are created from.
#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    Import(ImportArgs),
    /// List images.
    List,
    /// Show an image with its versions, or one version.
    Show(NameArgs),
    /// Remove an image with all its versions, or one version; refused while disks of guests depend on it.
    Remove(NameArgs),
    /// Choose the version of an image that new guests get.
    Publish(NameArgs),
}

/// Import a disk image as a new version: raw, qcow2, VMDK, VDI, VHD, VHDX, QED, the disk of an OVA; compressed ones too.
///
/// New guests get the new version as soon as it is complete, and never before.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Name of the image.
    name: TemplateName,
    /// File, http(s) URL, or `-` for stdin.
    source: String,
    /// SHA-256 that the file must have.
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    sha256: Option<String>,
    /// Import a raw disk even without a boot sector.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct NameArgs {
    /// NAME or NAME@VERSION.
    #[arg(value_name = "IMAGE")]
    name: TemplateName,
}

impl ImageArgs {
    /// Whether it changes nothing.
    pub(super) fn only_looks(&self) -> bool {
        matches!(self.command, ImageCommand::List | ImageCommand::Show(_))
    }
}

fn sha256(text: &str) -> Result<String, String> {
    let fine = text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
    if fine { Ok(text.to_lowercase()) } else { Err("a SHA-256 has 64 hexadecimal digits".to_owned()) }
}

#[derive(Serialize)]
struct Listing {
    images: Vec<Template>,
    /// State objects that cannot be read.
    unread: Vec<Unread>,
}

/// Runs `rackhand image ...`.
///
/// # Errors
/// What the command itself reports.
pub async fn run(args: ImageArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        ImageCommand::Import(args) => run_import(args, context).await,
        ImageCommand::List => {
            let rack = context.cluster().await?;
            let (images, unread) = image::list(rack.port()).await?;
            for object in &unread {
                context.ui.warn(format!("{}; see `rackhand doctor`", object.why));
            }
            let listing = Listing { images, unread };
            context.ui.result("rackhand.image-list/1", &listing, |listing| table(&listing.images))
        }
        ImageCommand::Show(args) => {
            let rack = context.cluster().await?;
            let mut template = image::get(rack.port(), &args.name.name).await?;
            if args.name.version.is_some() {
                template.versions = vec![image::find(rack.port(), &args.name).await?.1];
            }
            context.ui.result("rackhand.image/1", &template, |template| table(std::slice::from_ref(template)))
        }
        ImageCommand::Remove(args) => {
            let rack = context.cluster().await?;
            offer::removable(rack.port(), &args.name).await?;
            let name = args.name.to_string();
            if context.would("remove", &[&name])? {
                return Ok(());
            }
            let all = if args.name.version.is_none() { " with all its versions" } else { "" };
            context.confirm(&format!("remove image {name}{all}?")).await?;
            let removed = offer::remove(rack.port(), &args.name).await?;
            let versions: Vec<String> = removed.iter().map(ToString::to_string).collect();
            let what =
                if versions.is_empty() { "all of it".to_owned() } else { format!("version {}", versions.join(", ")) };
            context.ui.note(format!("image {}: {what} removed", args.name.name));
            context.did("remove", &name, true)
        }
        ImageCommand::Publish(args) => {
            let Some(version) = args.name.version else {
                return Err(Failure::usage("no version named").hint("write NAME@VERSION"));
            };
            let rack = context.cluster().await?;
            image::find(rack.port(), &args.name).await?;
            let name = args.name.to_string();
            if context.would("publish", &[&name])? {
                return Ok(());
            }
            let changed = image::publish(rack.port(), &args.name.name, version).await?;
            let already = if changed { "" } else { " already" };
            context.ui.note(format!("new guests of {} get version {version}{already}", args.name.name));
            context.did("publish", &name, changed)
        }
    }
}

async fn run_import(args: ImportArgs, context: &Context) -> Result<(), Failure> {
    if args.name.version.is_some() {
        return Err(Failure::usage("the version of an import is given by rackhand").hint("write the name alone"));
    }
    let order = Import { name: args.name.name, source: args.source, sha256: args.sha256, force: args.force };
    let rack = context.cluster().await?;
    if context.would(&format!("import {} as image", shown_source(&order.source)), &[&order.name])? {
        return Ok(());
    }
    let version = import(&rack, &order).await?;
    context.ui.result("rackhand.image-version/1", &version, |v| format!("{}@{}", order.name, v.version))
}

fn table(images: &[Template]) -> String {
    let mut table = Table::new(["image", "version", "size", "imported", "sha256", "source"]);
    for image in images {
        for version in &image.versions {
            let current = if version.version == image.current { " (current)" } else { "" };
            table.row([
                image.name.clone(),
                format!("{}{current}", version.version),
                version.size.to_string(),
                version.imported.strftime("%Y-%m-%d %H:%M").to_string(),
                version.sha256.chars().take(12).collect(),
                version.source.clone(),
            ]);
        }
    }
    table.render()
}
