//! Imports and removals side by side, and killed at each step.

use super::super::image::{find, get, list, sample};
use super::*;
use crate::cluster::{FakeCluster, ImageUser, ImageUsers, Keys};
use crate::inventory::Size;
use futures::future::join_all;

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn later(hours: i64) -> Timestamp {
    START + SignedDuration::from_hours(hours)
}

/// An import as it goes, up to a step at which it is killed.
async fn import(port: &FakeCluster, name: &str, id: u128, steps: usize) -> Option<TemplateVersion> {
    let image = Template::image_name(Uuid::from_u128(id));
    let entry = Importing { image: image.clone(), by: format!("op{id}"), seen: START };
    if steps > 0 {
        begin(port, name, &entry).await.unwrap();
    }
    if steps > 1 {
        port.image_create(&image, 1 << 20).await.unwrap();
    }
    if steps > 2 {
        port.snapshot_create(&image, BASE, true).await.unwrap();
    }
    if steps < 4 {
        return None;
    }
    let version = |number| TemplateVersion {
        version: number,
        image: image.clone(),
        size: Size::mib(1),
        sha256: id.to_string(),
        source: "x".into(),
        imported: START,
    };
    Some(offer(port, name, &image, version).await.unwrap())
}

async fn objects(port: &FakeCluster) -> Vec<String> {
    port.list(PREFIX).await.unwrap().into_iter().map(|o| o.name).collect()
}

#[tokio::test]
async fn importers_at_once_get_a_version_and_a_disk_image_each() {
    for seed in 0..32 {
        importers_at_once(&FakeCluster::seeded(seed)).await;
    }
}

async fn importers_at_once(port: &FakeCluster) {
    let versions = join_all((1..=8).map(|id| import(port, "tiny", id, 4))).await;
    let mut numbers: Vec<u32> = versions.iter().flatten().map(|v| v.version).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
    let template = get(port, "tiny").await.unwrap();
    assert_eq!((template.current, template.versions.len(), template.importing.len()), (8, 8, 0));
    for version in versions.into_iter().flatten() {
        let kept = template.version(Some(version.version)).unwrap();
        assert_eq!(*kept, version, "another one's content under this number");
        assert!(port.image(&kept.image).await.unwrap().unwrap().snapshots.iter().any(|s| s.name == BASE));
    }
}

#[tokio::test]
async fn a_removal_an_import_a_clone_and_a_sweep_at_once_end_well_defined() {
    for seed in 0..64 {
        let port = FakeCluster::seeded(seed);
        let name = sample(&port, "tiny").await;
        let version = find(&port, &name).await.unwrap().1;
        let base = version.base();
        let notes = Keys::new();
        let (removed, again, imported, cloned, _) = tokio::join!(
            remove(&port, &name),
            remove(&port, &name),
            import(&port, "tiny", 7, 4),
            port.image_clone(&base, "vm.1.disk0", 0, &notes),
            sweep(&port, START),
        );
        let images = port.images().await.unwrap();
        let offered = get(&port, "tiny").await.map(|t| t.versions).unwrap_or_default();
        // What is offered is whole, what a disk stands on is there, and the import lost nothing.
        for version in &offered {
            let found = port.image(&version.image).await.unwrap();
            let whole = found.is_some_and(|image| image.snapshots.iter().any(|s| s.name == BASE));
            assert!(whole, "seed {seed}: version {} without its disk", version.version);
        }
        if cloned.is_ok() {
            assert!(images.contains(&base.image), "seed {seed}");
        }
        let imported = imported.unwrap();
        let kept = offered.iter().any(|v| v.image == imported.image);
        let taken = [&removed, &again].iter().any(|r| r.as_ref().is_ok_and(|v| v.contains(&imported.version)));
        assert!(kept || taken, "seed {seed}: {removed:?} {again:?}");
        // Whatever was left over, later runs clear it away.
        if cloned.is_ok() {
            port.image_remove("vm.1.disk0").await.unwrap();
        }
        sweep(&port, START).await.unwrap();
        sweep(&port, START).await.unwrap();
        let offered = get(&port, "tiny").await.map(|t| t.versions).unwrap_or_default();
        assert_eq!(port.images().await.unwrap().len(), offered.len(), "seed {seed}");
    }
}

#[tokio::test]
async fn a_killed_import_is_cleared_away_when_it_was_silent_long_enough_and_not_before() {
    for steps in 1..4 {
        let port = FakeCluster::new();
        import(&port, "tiny", 1, steps).await;
        assert!(get(&port, "tiny").await.is_err(), "nothing is offered");
        assert!(list(&port).await.unwrap().0.is_empty());
        let images = port.images().await.unwrap();
        assert!(sweep(&port, later(4)).await.unwrap().is_empty());
        assert_eq!(port.images().await.unwrap(), images, "it may be at work still");
        sweep(&port, later(6)).await.unwrap();
        assert!(port.images().await.unwrap().is_empty() && objects(&port).await.is_empty(), "step {steps}");
    }
    let port = FakeCluster::new();
    import(&port, "tiny", 1, 4).await;
    assert!(sweep(&port, later(99)).await.unwrap().is_empty(), "what is offered stays");
    find(&port, &"tiny".parse().unwrap()).await.unwrap();
}

#[tokio::test]
async fn an_import_that_shows_life_or_still_writes_is_left_alone() {
    let port = FakeCluster::new();
    let image = Template::image_name(Uuid::from_u128(1));
    import(&port, "tiny", 1, 2).await;
    assert!(renew(&port, "tiny", &image, later(3)).await.unwrap());
    sweep(&port, later(7)).await.unwrap();
    assert_eq!(port.images().await.unwrap(), std::slice::from_ref(&image));
    let writer = ImageUser { address: "10.0.0.1:0/1".into(), client: "client.1".into(), cookie: String::new() };
    port.use_image(&image, ImageUsers { watchers: vec![writer], lockers: vec![] });
    sweep(&port, later(99)).await.unwrap();
    assert_eq!(objects(&port).await.len(), 1);
    port.use_image(&image, ImageUsers::default());
    assert_eq!(sweep(&port, later(99)).await.unwrap(), std::slice::from_ref(&image));
    // What comes back to life then offers nothing, and leaves nothing.
    assert!(!renew(&port, "tiny", &image, later(99)).await.unwrap());
    port.image_create(&image, 1).await.unwrap();
    let version = |_| unreachable!("it has no entry");
    let failure = offer(&port, "tiny", &image, version).await.unwrap_err();
    assert!(failure.to_string().contains("cleared it away"), "{failure}");
    abandon(&port, "tiny", &image).await.unwrap();
    assert!(port.images().await.unwrap().is_empty() && objects(&port).await.is_empty());
}

#[tokio::test]
async fn giving_up_takes_back_what_was_announced_and_nothing_that_is_offered() {
    let port = FakeCluster::new();
    let offered = import(&port, "tiny", 1, 4).await.unwrap();
    import(&port, "tiny", 2, 3).await;
    abandon(&port, "tiny", &Template::image_name(Uuid::from_u128(2))).await.unwrap();
    abandon(&port, "tiny", &offered.image).await.unwrap();
    assert_eq!(port.images().await.unwrap(), [offered.image]);
    assert_eq!(get(&port, "tiny").await.unwrap().versions.len(), 1);
}

#[tokio::test]
async fn an_image_with_guests_on_it_stays_offered() {
    let port = FakeCluster::new();
    let name = sample(&port, "tiny").await;
    let (_, version) = find(&port, &name).await.unwrap();
    port.image_clone(&version.base(), "vm.1.disk0", 0, &Keys::new()).await.unwrap();
    let before = get(&port, "tiny").await.unwrap();
    let failure = remove(&port, &name).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
    assert_eq!(failure.to_string(), "image tiny is in use: 1 disks stand on it: vm.1.disk0 (v2)");
    assert_eq!(get(&port, "tiny").await.unwrap(), before, "as it was, the current version too");
    assert_eq!(remove(&port, &"tiny@1".parse().unwrap()).await.unwrap(), [1]);
    port.image_remove("vm.1.disk0").await.unwrap();
    assert_eq!(remove(&port, &name).await.unwrap(), [2]);
    assert!(get(&port, "tiny").await.is_err());
    assert!(port.images().await.unwrap().is_empty() && objects(&port).await.is_empty());
    assert_eq!(remove(&port, &name).await.unwrap_err().kind, Kind::Usage);
}

#[tokio::test]
async fn a_killed_removal_is_finished_by_the_same_command_or_by_a_later_one() {
    for steps in 1..=3 {
        for again in [false, true] {
            let port = FakeCluster::new();
            let name: TemplateName = "tiny@2".parse().unwrap();
            sample(&port, "tiny").await;
            let image = find(&port, &name).await.unwrap().1.image;
            let hidden = hide(&port, &name).await.unwrap();
            assert_eq!(get(&port, "tiny").await.unwrap().current, 1, "it is not offered from here on");
            if steps > 1 {
                drop_hidden(&port, "tiny", &hidden).await.unwrap();
            }
            if steps > 2 {
                port.snapshot_remove(&image, BASE).await.unwrap();
            }
            if again && steps == 1 {
                removable(&port, &name).await.unwrap();
                assert_eq!(remove(&port, &name).await.unwrap(), [2]);
            } else if again {
                assert_eq!(remove(&port, &name).await.unwrap_err().kind, Kind::Usage, "it is gone already");
            }
            // One run settles what is hidden, the next deletes what is left of it.
            sweep(&port, START).await.unwrap();
            sweep(&port, START).await.unwrap();
            assert_eq!(port.images().await.unwrap().len(), 1, "step {steps}");
            assert_eq!(get(&port, "tiny").await.unwrap().versions.len(), 1);
        }
    }
    // Where a disk came to stand on it after all, it is offered again.
    let port = FakeCluster::new();
    let name = sample(&port, "tiny").await;
    let version = find(&port, &name).await.unwrap().1;
    hide(&port, &name).await.unwrap();
    port.image_clone(&version.base(), "vm.1.disk0", 0, &Keys::new()).await.unwrap();
    sweep(&port, START).await.unwrap();
    assert_eq!(find(&port, &name).await.unwrap().1, version);
}

#[tokio::test]
async fn a_disk_cloned_at_the_last_moment_keeps_its_image_and_the_name_stays_free() {
    let port = FakeCluster::new();
    let name = sample(&port, "tiny").await;
    let version = find(&port, &name).await.unwrap().1;
    let hidden = hide(&port, &name).await.unwrap();
    drop_hidden(&port, "tiny", &hidden).await.unwrap();
    port.image_clone(&version.base(), "vm.1.disk0", 0, &Keys::new()).await.unwrap();
    assert_eq!(discard(&port, &version.image).await.unwrap_err().kind, Kind::Busy);
    assert_eq!(import(&port, "tiny", 7, 4).await.unwrap().version, 1);
    sweep(&port, START).await.unwrap();
    assert!(port.image(&version.image).await.unwrap().is_some());
    port.image_remove("vm.1.disk0").await.unwrap();
    assert_eq!(sweep(&port, START).await.unwrap(), [version.image]);
}

#[tokio::test]
async fn an_image_that_cannot_be_read_can_be_removed_but_not_under_a_disk() {
    let port = FakeCluster::new();
    let name = sample(&port, "tiny").await;
    let template = get(&port, "tiny").await.unwrap();
    let object = port.get(&Template::object("tiny")).await.unwrap().unwrap();
    let newer = object.data.replace("rackhand.image/1", "rackhand.image/9");
    port.replace(&object.name, &newer, object.version).await.unwrap();
    removable(&port, &name).await.unwrap();
    assert!(removable(&port, &"tiny@1".parse().unwrap()).await.is_err(), "its versions are not known");
    sweep(&port, later(99)).await.unwrap();
    assert_eq!(port.images().await.unwrap().len(), 2, "it may name any image");
    port.image_clone(&template.versions[0].base(), "vm.1.disk0", 0, &Keys::new()).await.unwrap();
    assert_eq!(remove(&port, &name).await.unwrap_err().kind, Kind::Refused);
    port.image_remove("vm.1.disk0").await.unwrap();
    remove(&port, &name).await.unwrap();
    assert!(port.images().await.unwrap().is_empty() && objects(&port).await.is_empty());
    for text in ["", "{", "null"] {
        port.create(&Template::object("bad"), text).await.unwrap();
        remove(&port, &"bad".parse().unwrap()).await.unwrap();
        assert!(objects(&port).await.is_empty());
    }
}
