//! Commands that are killed, or lose an answer, at every remote call in turn: the same command, run again, converges, and
//! nothing is left over.

use super::harness::{World, evacuate, migrate, order};
use crate::cluster::ClusterPort;
use crate::error::Failure;
use crate::guest::{GuestContext, How, INDEX, conclude, create, delete, delete_reserved, make, start, stop};
use crate::ssh::{Blow, Trap};
use futures::future::LocalBoxFuture;

/// A command on a rack.
type Command = for<'a> fn(&'a GuestContext) -> LocalBoxFuture<'a, Result<(), Failure>>;
/// What a world begins with, or has to be in the end.
type Scene = for<'a> fn(&'a World) -> LocalBoxFuture<'a, ()>;

/// Runs a command once for each of its remote calls, which goes wrong, and then once more as it should.
async fn converges(before: Scene, command: Command, after: Scene) {
    for blow in [Blow::Killed, Blow::NeverArrived, Blow::AnswerLost] {
        let mut n = 1;
        loop {
            let world = World::new().await;
            before(&world).await;
            let trap = Trap::new(n, blow);
            let rack = world.behind(&trap);
            let first = trap.run(command(&rack)).await;
            if !trap.sprang() {
                assert!(n > 3, "the command makes more calls than that");
                assert!(first.is_some_and(|outcome| outcome.is_ok()), "{blow:?}: nothing went wrong");
                break;
            }
            if let Err(failure) = command(&world.another()).await {
                panic!("{blow:?} at call {n}: run again it fails: {failure} (first: {first:?})");
            }
            after(&world).await;
            n += 1;
        }
    }
}

fn nothing(_: &World) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {})
}

fn a_made_guest(world: &World) -> LocalBoxFuture<'_, ()> {
    Box::pin(async { drop(world.made("web").await) })
}

fn a_running_guest(world: &World) -> LocalBoxFuture<'_, ()> {
    Box::pin(async { drop(world.running("web").await) })
}

fn two_running_guests(world: &World) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        world.running("web").await;
        world.running("db").await;
    })
}

/// Everything that a guest is made of is there once, and nothing else.
fn one_guest_that_runs(world: &World) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        let guest = world.rack.guest("web").await.unwrap();
        world.runs_once(guest.uuid).await;
        let port = &world.cluster;
        let names: Vec<String> = port.list("guest.").await.unwrap().into_iter().map(|o| o.name).collect();
        assert_eq!(names, [format!("guest.{}", guest.uuid)]);
        assert_eq!(port.keys(INDEX).await.unwrap().into_keys().collect::<Vec<_>>(), ["web"]);
        let mut images = vec![guest.disks[0].image.clone(), guest.seed_image()];
        images.sort();
        let disks: Vec<String> = port.images().await.unwrap().into_iter().filter(|i| i.starts_with("vm.")).collect();
        assert_eq!(disks, images);
        let owners = port.keys("network.lan").await.unwrap();
        let others = owners.iter().filter(|(k, v)| !format!("{k} {v}").contains(&guest.uuid.to_string())).count();
        assert_eq!((owners.len(), others), (2, 0), "an address and a MAC: {owners:?}");
    })
}

fn a_guest_that_is_down(world: &World) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        let guest = world.rack.guest("web").await.unwrap();
        assert!(world.hosts.places(guest.uuid).is_empty());
        assert_eq!(world.claim(guest.uuid).await.phase, crate::guest::claim::Phase::Free);
    })
}

fn no_trace(world: &World) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        assert_eq!(world.traces().await, Vec::<String>::new());
        assert_eq!(world.hosts.domains(), 0);
    })
}

fn run_create(rack: &GuestContext) -> LocalBoxFuture<'_, Result<(), Failure>> {
    Box::pin(async {
        let plan = match create::plan(rack, order("web")).await {
            // A run that was killed at its very end has made and started it.
            Err(failure) if failure.to_string() == "guest web exists already" => return Ok(()),
            plan => plan?,
        };
        let made = conclude("create", make(rack, &plan).await?)?;
        conclude("start", create::start(rack, &plan, &made).await).map(drop)
    })
}

fn run_start(rack: &GuestContext) -> LocalBoxFuture<'_, Result<(), Failure>> {
    Box::pin(async {
        let guest = rack.guest("web").await?;
        conclude("start", start(rack, &[guest], None).await).map(drop)
    })
}

fn run_stop(rack: &GuestContext) -> LocalBoxFuture<'_, Result<(), Failure>> {
    Box::pin(async {
        let guest = rack.guest("web").await?;
        conclude("stop", stop(rack, &[guest], How::Force).await?).map(drop)
    })
}

fn run_delete(rack: &GuestContext) -> LocalBoxFuture<'_, Result<(), Failure>> {
    Box::pin(async {
        let Some(uuid) = rack.index().await?.get("web").copied() else { return Ok(()) };
        match rack.guests().await?.into_iter().find(|guest| guest.uuid == uuid) {
            Some(guest) => conclude("delete", delete(rack, &[guest]).await?).map(drop),
            None => delete_reserved(rack, "web", uuid).await,
        }
    })
}

fn run_migrate(rack: &GuestContext) -> LocalBoxFuture<'_, Result<(), Failure>> {
    Box::pin(migrate(rack, "web", "h2"))
}

fn run_evacuate(rack: &GuestContext) -> LocalBoxFuture<'_, Result<(), Failure>> {
    Box::pin(async { evacuate(rack, "h1").await?.failure().map_or(Ok(()), Err) })
}

#[tokio::test(start_paused = true)]
async fn a_create_converges() {
    converges(nothing, run_create, one_guest_that_runs).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_converges() {
    converges(a_made_guest, run_start, one_guest_that_runs).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_converges() {
    converges(a_running_guest, run_stop, a_guest_that_is_down).await;
}

#[tokio::test(start_paused = true)]
async fn a_delete_converges() {
    converges(a_running_guest, run_delete, no_trace).await;
}

#[tokio::test(start_paused = true)]
async fn a_delete_of_what_a_killed_create_left_converges() {
    for n in 1.. {
        let world = World::new().await;
        let trap = Trap::new(n, Blow::Killed);
        let rack = world.behind(&trap);
        trap.run(run_create(&rack)).await;
        if !trap.sprang() {
            break;
        }
        run_delete(&world.another()).await.unwrap();
        no_trace(&world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_migrate_converges() {
    converges(a_running_guest, run_migrate, |world| {
        Box::pin(async {
            let guest = world.rack.guest("web").await.unwrap();
            assert_eq!(world.runs_once(guest.uuid).await, "h2");
        })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_evacuation_converges() {
    converges(two_running_guests, run_evacuate, |world| {
        Box::pin(async {
            for name in ["web", "db"] {
                let guest = world.rack.guest(name).await.unwrap();
                assert_ne!(world.runs_once(guest.uuid).await, "h1");
            }
        })
    })
    .await;
}
