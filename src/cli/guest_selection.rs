//! Guests on the command line: names, globs, ids, `--tag`, `--host`, `--all`.

use crate::error::Failure;
use crate::guest::{DomainInventory, Guest, GuestContext, Selection};
use clap::Args;

/// Guests by name and tag.
#[derive(Clone, Debug, Default, Args)]
pub struct GuestNames {
    /// Guests: names, quoted globs or UUIDs.
    #[arg(value_name = "GUEST")]
    pub guests: Vec<String>,
    /// Guests with this tag; repeated, guests with all of the tags.
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub tag: Vec<String>,
    /// All guests.
    #[arg(long)]
    pub all: bool,
}

/// Which guests a command is for.
#[derive(Clone, Debug, Default, Args)]
pub struct GuestSelection {
    /// Names and tags.
    #[command(flatten)]
    pub names: GuestNames,
    /// Guests that run on this host.
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
}

impl GuestNames {
    /// The guests it names.
    ///
    /// # Errors
    /// When it names none, or a name fits no guest.
    pub async fn resolve(&self, rack: &GuestContext) -> Result<Vec<Guest>, Failure> {
        self.pick(rack, false).await
    }

    async fn pick(&self, rack: &GuestContext, empty_is_all: bool) -> Result<Vec<Guest>, Failure> {
        let selection = Selection { names: self.guests.clone(), tags: self.tag.clone(), all: self.all };
        selection.pick(rack.guests().await?, empty_is_all)
    }
}

impl GuestSelection {
    /// The guests it names.
    ///
    /// # Errors
    /// When it names none, or a name fits no guest.
    pub async fn resolve(&self, rack: &GuestContext) -> Result<Vec<Guest>, Failure> {
        self.pick(rack, false).await
    }

    /// The guests it names; all of them where it names none.
    ///
    /// # Errors
    /// When a name fits no guest.
    pub async fn resolve_or_all(&self, rack: &GuestContext) -> Result<Vec<Guest>, Failure> {
        self.pick(rack, true).await
    }

    async fn pick(&self, rack: &GuestContext, empty_is_all: bool) -> Result<Vec<Guest>, Failure> {
        let guests = self.names.pick(rack, empty_is_all || self.host.is_some()).await?;
        let Some(host) = &self.host else { return Ok(guests) };
        if rack.hypervisors.get(host).is_err() {
            return Err(Failure::usage(format!("the inventory has no host `{host}` that runs guests")));
        }
        let domain_inventory = DomainInventory::take(rack, false).await?;
        if let Some(why) = domain_inventory.silent.get(host) {
            return Err(Failure::failed(format!("cannot tell which guests run on {host}: {why}")));
        }
        let there = |guest: &Guest| domain_inventory.place(guest.uuid).is_some_and(|(at, _)| at == host);
        Ok(guests.into_iter().filter(there).collect())
    }
}
