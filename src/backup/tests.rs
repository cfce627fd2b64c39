//! Backups of a guest on a rack in memory, into a real repository.

use super::lease::alone;
use super::{Repository, Restore, Target, find, restore, run, stream};
use crate::cluster::{ClusterPort, FakeCluster, FaultyCluster, KeysChange, encode, fetch};
use crate::error::{Failure, Kind};
use crate::guest::claim::{self, Run};
use crate::guest::{Guest, GuestContext, INDEX, Restoring, Seed, Stage, delete, sample_guest, sample_inventory};
use crate::inventory::BackupStorage;
use crate::libvirt::{FakeRack, Token};
use crate::ssh::{Blow, Channel, Exec, Fleet, Forward, Output, Remote, RemoteError, Trap};
use crate::ui::Ui;
use async_trait::async_trait;
use rackhand_repository::{PointKind, PointSummary};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The disk as the mon hosts read and write it.
#[derive(Debug, Default)]
struct Disk {
    content: Vec<u8>,
    /// Whether its reader ends early.
    cut: bool,
    /// Whether its reader stands still.
    stuck: bool,
    /// The last stream that was written to a disk.
    written: Vec<u8>,
}

/// A mon host that plays the scripts.
#[derive(Debug)]
struct Mon(&'static str, Arc<Mutex<Disk>>);

fn diff(request: &Value, size: u64, content: &[u8]) -> Vec<u8> {
    let mut stream = b"rbd diff v1\n".to_vec();
    for (tag, key) in [(b'f', "from"), (b't', "to")] {
        if let Some(name) = request[key].as_str() {
            stream.push(tag);
            stream.extend((name.len() as u32).to_le_bytes());
            stream.extend(name.as_bytes());
        }
    }
    stream.push(b's');
    stream.extend(size.to_le_bytes());
    stream.push(b'w');
    stream.extend(4096u64.to_le_bytes());
    stream.extend((content.len() as u64).to_le_bytes());
    stream.extend(content);
    stream.push(b'e');
    stream
}

#[async_trait]
impl Remote for Mon {
    fn name(&self) -> &str {
        self.0
    }

    async fn run(&self, _: Exec) -> Result<Output, RemoteError> {
        Ok(Output::default())
    }

    async fn channel(&self, exec: Exec) -> Result<Channel, RemoteError> {
        let hello = String::from_utf8(exec.stdin).unwrap();
        let request: Value = serde_json::from_str(hello.trim_end().lines().last().unwrap()).unwrap();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (read, write) = tokio::io::split(ours);
        let disk = Arc::clone(&self.1);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(theirs);
            while disk.lock().unwrap().stuck {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            let answer = if request.get("to").is_some() {
                let disk = disk.lock().unwrap();
                let mut stream = diff(&request, SIZE, &disk.content);
                if disk.cut {
                    stream.truncate(stream.len() - 3);
                }
                stream
            } else {
                let mut stream = Vec::new();
                read.read_to_end(&mut stream).await.unwrap();
                let told = format!("{{\"bytes\": {}}}\n", stream.len()).into_bytes();
                disk.lock().unwrap().written = stream;
                told
            };
            let _ = write.write_all(&answer).await;
            let _ = write.shutdown().await;
        });
        Ok(Channel::new(write, read, ()))
    }

    async fn forward_socket(&self, path: &str) -> Result<Forward, RemoteError> {
        Ok(Forward::local(path))
    }
}

const SIZE: u64 = 1 << 20;

struct World {
    rack: GuestContext,
    cluster: Arc<FakeCluster>,
    disk: Arc<Mutex<Disk>>,
    guest: Guest,
    repository: Repository,
    _directory: tempfile::TempDir,
}

/// A rack with the guest `web`, complete and down, and an empty repository.
async fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let mut inventory = sample_inventory();
    let storage = BackupStorage { address: None, user: None, port: None, path: directory.path().join("vault") };
    inventory.backup.storage.insert("vault".to_owned(), storage);
    let cluster = Arc::new(FakeCluster::new());
    let mut guest = sample_guest("web");
    guest.stage = Stage::Ready;
    let port = cluster.as_ref();
    port.create(&Guest::object(guest.uuid), &encode(&guest).unwrap()).await.unwrap();
    port.change_keys(INDEX, &KeysChange::default().add("web", guest.uuid.to_string())).await.unwrap();
    for disk in &guest.disks {
        port.image_create(&disk.image, SIZE).await.unwrap();
    }
    let seed = Seed::new(&guest, |name| inventory.networks.guests.get(name), b"#cloud-config\n".to_vec()).unwrap();
    port.image_write(&guest.seed_image(), &seed.disk().unwrap()).await.unwrap();
    let disk = Arc::new(Mutex::new(Disk { content: b"one".to_vec(), ..Disk::default() }));
    let mon = |name| Arc::new(Mon(name, Arc::clone(&disk))) as Arc<dyn Remote>;
    let rack = GuestContext {
        port: cluster.clone(),
        hypervisors: FakeRack::new(["h1", "h2", "h3"]).hypervisors(),
        fleet: Fleet::of(["h1", "h2", "h3"].map(mon)),
        inventory: Arc::new(inventory),
        ui: Ui::hidden(),
        run: Run::new(),
        turns: Arc::default(),
    };
    let repository = Repository::of(&rack.inventory, None).unwrap();
    repository.begin(rack.port()).await.unwrap();
    World { rack, cluster, disk, guest, repository, _directory: directory }
}

impl World {
    /// The same rack as another run sees it, behind a trap where there is one.
    fn another(&self, trap: Option<&Arc<Trap>>) -> GuestContext {
        let inner: Arc<dyn ClusterPort> = self.cluster.clone();
        let port = match trap {
            Some(trap) => Arc::new(FaultyCluster { inner, trap: Arc::clone(trap) }),
            None => inner,
        };
        let run = Run { id: uuid::Uuid::new_v4().to_string(), ..Run::new() };
        GuestContext { port, run, turns: Arc::default(), ..self.rack.clone() }
    }

    async fn back_up(&self, rack: &GuestContext) -> Result<PointSummary, Failure> {
        let guests = std::slice::from_ref(&self.guest);
        run(rack, &self.repository, guests, false, 1).await.remove(0).1
    }

    /// The same, once the thread of a run that was killed has let the guest go.
    async fn back_up_again(&self) -> PointSummary {
        for _ in 0..1000 {
            match self.back_up(&self.another(None)).await {
                Err(failure) if failure.kind == Kind::Busy => std::thread::yield_now(),
                result => return result.unwrap(),
            }
        }
        panic!("it is busy for ever");
    }

    async fn points(&self) -> Vec<PointSummary> {
        self.repository.points(&Target::default()).await.unwrap()
    }

    async fn snapshots(&self) -> Vec<String> {
        let image = self.cluster.image(&self.guest.disks[0].image).await.unwrap().unwrap();
        image.snapshots.into_iter().map(|snapshot| snapshot.name).collect()
    }

    fn wanted(&self) -> Restore {
        Restore { guest: "web".into(), point: None, name: None }
    }
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_backed_up_deleted_and_restored_with_its_last_bytes() {
    let world = world().await;
    let first = world.back_up(&world.rack).await.unwrap();
    assert_eq!((first.kind, first.parent.as_deref()), (PointKind::Full, None));
    world.disk.lock().unwrap().content = b"two".to_vec();
    let second = world.back_up(&world.rack).await.unwrap();
    assert_eq!((second.kind, second.parent.as_deref()), (PointKind::Incremental, Some(first.point.as_str())));
    assert_eq!(world.snapshots().await, [format!("rackhand-backup.vault.{}", second.point)]);
    let there = restore(&world.rack, &world.repository, &world.wanted()).await.unwrap_err();
    assert_eq!(there.kind, Kind::Refused, "{there}");
    delete(&world.rack, std::slice::from_ref(&world.guest)).await.unwrap().remove(0).1.unwrap();
    assert_eq!(world.cluster.images().await.unwrap(), Vec::<String>::new());
    // A clock was wrong when it was restored the last time.
    let host = world.rack.hypervisors.get("h2").unwrap();
    host.revoke(world.guest.uuid, Token::new(9_000_000_000)).await.unwrap();
    let restored = restore(&world.rack, &world.repository, &world.wanted()).await.unwrap();
    assert_eq!((restored.uuid, restored.stage), (world.guest.uuid, Stage::Ready));
    assert_eq!(world.cluster.image(&restored.disks[0].image).await.unwrap().unwrap().size, SIZE);
    // Hosts refuse generations below those they have seen of it.
    let claim = claim::read(world.rack.port(), restored.uuid).await.unwrap();
    assert!(claim.generation > 9_000_000_000, "{claim:?}");
    let written = world.disk.lock().unwrap().written.clone();
    assert!(has(&written, "two") && !has(&written, "one"));
    assert_eq!(world.snapshots().await, Vec::<String>::new());
    // The base is gone, so the next point stands alone.
    assert_eq!(world.back_up(&world.rack).await.unwrap().kind, PointKind::Full);
}

#[tokio::test(start_paused = true)]
async fn a_restore_beside_the_guest_has_its_own_id_name_and_address() {
    let world = world().await;
    world.back_up(&world.rack).await.unwrap();
    let wanted = Restore { name: Some("copy".into()), ..world.wanted() };
    let copy = restore(&world.rack, &world.repository, &wanted).await.unwrap();
    assert_eq!((copy.name.as_str(), copy.stage), ("copy", Stage::Ready));
    assert_ne!(copy.uuid, world.guest.uuid);
    assert!(copy.nics.iter().zip(&world.guest.nics).all(|(a, b)| a.mac != b.mac && a.network == b.network));
    let seed = world.cluster.image_read(&copy.seed_image(), 0, 4 << 20).await.unwrap();
    assert!(has(&seed, "local-hostname: \"copy\"") || has(&seed, "local-hostname: copy"), "the seed has the new name");
    assert!(has(&seed, "#cloud-config"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_early_makes_no_point_and_leaves_no_snapshot() {
    let world = world().await;
    world.disk.lock().unwrap().cut = true;
    world.back_up(&world.rack).await.unwrap_err();
    assert!(world.points().await.is_empty());
    assert_eq!(world.snapshots().await, Vec::<String>::new());
    world.disk.lock().unwrap().cut = false;
    assert_eq!(world.back_up(&world.rack).await.unwrap().kind, PointKind::Full);
}

#[tokio::test(start_paused = true)]
async fn two_backups_of_a_guest_at_once_are_one() {
    let world = world().await;
    let (a, b) = (world.another(None), world.another(None));
    let (a, b) = tokio::join!(world.back_up(&a), world.back_up(&b));
    let busy = |result: &Result<PointSummary, Failure>| matches!(result, Err(failure) if failure.kind == Kind::Busy);
    assert!(a.is_ok() || b.is_ok());
    assert!(a.is_ok() || busy(&a), "{a:?}");
    assert!(b.is_ok() || busy(&b), "{b:?}");
    assert_eq!(world.snapshots().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_is_killed_at_any_call_is_followed_by_a_good_one_and_one_base() {
    for blow in [Blow::Killed, Blow::NeverArrived, Blow::AnswerLost] {
        for at in 1.. {
            let world = world().await;
            world.back_up(&world.rack).await.unwrap();
            let trap = Trap::new(at, blow);
            let rack = world.another(Some(&trap));
            let _ = trap.run(world.back_up(&rack)).await;
            if !trap.sprang() {
                assert!(at > 8, "a backup has more calls than {at}");
                break;
            }
            let last = world.back_up_again().await;
            assert_eq!(world.snapshots().await, [format!("rackhand-backup.vault.{}", last.point)], "{blow:?} at {at}");
            let points = world.points().await;
            assert!(points.iter().all(|point| point.problem.is_none()), "{blow:?} at {at}: {points:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_is_killed_at_any_call_is_finished_by_the_next_one() {
    for blow in [Blow::Killed, Blow::NeverArrived, Blow::AnswerLost] {
        for at in 1.. {
            let world = world().await;
            world.back_up(&world.rack).await.unwrap();
            delete(&world.rack, std::slice::from_ref(&world.guest)).await.unwrap().remove(0).1.unwrap();
            let trap = Trap::new(at, blow);
            let rack = world.another(Some(&trap));
            let first = trap.run(restore(&rack, &world.repository, &world.wanted())).await;
            if !trap.sprang() {
                assert!(at > 6, "a restore has more calls than {at}");
                break;
            }
            // The last change may have got through although its answer was lost.
            let ready = world.rack.guest("web").await.is_ok_and(|guest| guest.stage == Stage::Ready);
            if !ready && !matches!(first, Some(Ok(_))) {
                restore(&world.another(None), &world.repository, &world.wanted()).await.unwrap();
            }
            let guest = world.rack.guest("web").await.unwrap();
            assert_eq!((guest.stage, guest.uuid), (Stage::Ready, world.guest.uuid), "{blow:?} at {at}");
            assert_eq!(world.cluster.images().await.unwrap().len(), 2, "{blow:?} at {at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_not_deleted_while_it_is_backed_up() {
    let world = world().await;
    let end = tokio::sync::Notify::new();
    let work = async {
        end.notified().await;
        Ok(())
    };
    let backup = alone(world.rack.port(), world.guest.uuid, ("backup 1 on laptop", "a backup"), work);
    let other = async {
        let deleted = delete(&world.another(None), std::slice::from_ref(&world.guest)).await.unwrap().remove(0).1;
        end.notify_one();
        deleted.unwrap_err()
    };
    let (backup, refused) = tokio::join!(backup, other);
    backup.unwrap();
    assert_eq!(refused.kind, Kind::Busy, "{refused}");
    assert_eq!(world.rack.guest("web").await.unwrap().stage, Stage::Ready);
    world.back_up(&world.rack).await.unwrap();
    // What was deleted before it was held is not backed up.
    delete(&world.rack, std::slice::from_ref(&world.guest)).await.unwrap().remove(0).1.unwrap();
    let failure = world.back_up(&world.rack).await.unwrap_err();
    assert_eq!((failure.kind, failure.to_string().as_str()), (Kind::Failed, "it was deleted meanwhile"));
}

/// What another run of a restore from `point` has left.
async fn half_restored(world: &World, point: &str, stage: Stage) -> Guest {
    let restore = Restoring { repository: "vault".into(), point: point.into(), run: "another".into() };
    let guest = Guest { stage, restore: Some(restore), cpus: 99, ..world.guest.clone() };
    let object = Guest::object(guest.uuid);
    if let Some((_, version)) = fetch::<Guest>(world.rack.port(), &object).await.unwrap() {
        world.cluster.remove(&object, version).await.unwrap();
    }
    world.cluster.create(&object, &encode(&guest).unwrap()).await.unwrap();
    guest
}

#[tokio::test(start_paused = true)]
async fn a_restore_from_another_point_begins_anew() {
    let world = world().await;
    world.back_up(&world.rack).await.unwrap();
    let mut begun = half_restored(&world, "20200101T000000Z", Stage::Creating).await;
    let extra = crate::guest::Disk { image: "vm.extra".into(), ..begun.disks[0].clone() };
    begun.disks.push(extra);
    let object = Guest::object(begun.uuid);
    let (_, version) = fetch::<Guest>(world.rack.port(), &object).await.unwrap().unwrap();
    world.cluster.replace(&object, &encode(&begun).unwrap(), version).await.unwrap();
    world.cluster.image_create("vm.extra", SIZE).await.unwrap();
    // The disk's base would stop its removal, as it does on a cluster.
    for snapshot in world.snapshots().await {
        world.cluster.snapshot_remove(&world.guest.disks[0].image, &snapshot).await.unwrap();
    }
    let restored = restore(&world.rack, &world.repository, &world.wanted()).await.unwrap();
    assert_eq!((restored.cpus, restored.restore.clone()), (world.guest.cpus, None));
    assert_eq!(restored.disks, world.guest.disks);
    assert_eq!(world.cluster.image("vm.extra").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_lost_its_guest_to_another_run_touches_no_disk() {
    let world = world().await;
    world.back_up(&world.rack).await.unwrap();
    delete(&world.rack, std::slice::from_ref(&world.guest)).await.unwrap().remove(0).1.unwrap();
    world.disk.lock().unwrap().stuck = true;
    let (image, wanted) = (world.guest.disks[0].image.clone(), world.wanted());
    let sleeper = world.another(None);
    let other = async {
        while world.cluster.image(&image).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        // It has begun with the disk. Another run takes the guest over and completes it.
        half_restored(&world, "20200101T000000Z", Stage::Ready).await;
        world.disk.lock().unwrap().stuck = false;
    };
    let (lost, ()) = tokio::join!(restore(&sleeper, &world.repository, &wanted), other);
    assert_eq!(lost.unwrap_err().kind, Kind::Busy);
    assert_eq!(world.cluster.image(&world.guest.seed_image()).await.unwrap(), None, "it wrote no seed");
    assert_eq!(world.rack.guest("web").await.unwrap().cpus, 99);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_not_the_clusters_repository_is_refused_and_costs_no_base() {
    let world = world().await;
    let first = world.back_up(&world.rack).await.unwrap();
    let (vault, away) = (&world.repository.path, world.repository.path.with_extension("away"));
    let refused = |failure: Failure| assert_eq!(failure.kind, Kind::Refused, "{failure}");
    // Not mounted; then another one.
    std::fs::rename(vault, &away).unwrap();
    std::fs::create_dir(vault).unwrap();
    refused(world.back_up(&world.rack).await.unwrap_err());
    refused(world.repository.points(&Target::default()).await.unwrap_err());
    refused(find(&world.rack, &world.repository, &world.wanted()).await.unwrap_err());
    assert!(world.repository.replaces(world.rack.port()).await.unwrap());
    std::fs::write(vault.join("rackhand-repository.json"), r#"{"format":1,"written_by":"x","id":"other"}"#).unwrap();
    refused(world.back_up(&world.rack).await.unwrap_err());
    assert_eq!(world.snapshots().await, [format!("rackhand-backup.vault.{}", first.point)]);
    // The right one again.
    std::fs::remove_dir_all(vault).unwrap();
    std::fs::rename(&away, vault).unwrap();
    assert!(!world.repository.replaces(world.rack.port()).await.unwrap());
    assert_eq!(world.back_up(&world.rack).await.unwrap().kind, PointKind::Incremental);
    // It keeps its id whenever it is begun.
    world.repository.begin(world.rack.port()).await.unwrap();
    assert_eq!(world.back_up(&world.rack).await.unwrap().kind, PointKind::Incremental);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stands_still_is_given_up() {
    let world = world().await;
    world.disk.lock().unwrap().stuck = true;
    let (to, _from) = tokio::sync::mpsc::channel(1);
    let disk = stream::Disk { image: "disk".into(), from: None, to: "snapshot".into() };
    let remote = world.rack.fleet.get("h1").unwrap();
    let failure = stream::send(remote.as_ref(), "pool", &disk, &to).await.unwrap_err();
    assert_eq!(failure.to_string(), "host h1: reading disk image disk stands still since 30 minutes");
}
