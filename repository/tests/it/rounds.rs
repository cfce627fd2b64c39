//! Random histories against a model: the bytes of every image at every point.

use crate::disk::{BLOCK, Repo, chunked, diff, noise, one};
use proptest::prelude::*;
use rackhand_repository as store;
use std::collections::BTreeMap;
use std::fs;
use store::{Depth, Keep, ReceiveDisk};

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// A run: blocks that were written and zeroed since the last one, a new size, and whether it is a full.
    Run { writes: Vec<(usize, usize)>, zeros: Vec<(usize, usize)>, blocks: Option<usize>, full: bool, second: bool },
    /// A run that ends early at this part of its stream.
    Cut(usize),
    /// The points before one are folded into it, onto another or none.
    Merge(usize, Option<usize>),
    /// A prune.
    Prune(Keep, usize),
    /// A bit of a data file flips; found, and set right again.
    Flip(usize, usize),
    /// The program died while it wrote a point.
    Litter,
}

const MOST: usize = 24;

fn step() -> impl Strategy<Value = Step> {
    let blocks = || prop::collection::vec((0..MOST, 1_usize..6), 0..4);
    let run = (blocks(), blocks(), prop::option::weighted(0.3, 1..MOST), prop::bool::weighted(0.15), any::<bool>());
    let run = run.prop_map(|(writes, zeros, blocks, full, second)| Step::Run { writes, zeros, blocks, full, second });
    let keep = (0_u32..3, 0_u32..3, 0_u32..3).prop_map(|(last, hourly, daily)| Keep {
        last: last + 1,
        hourly,
        daily,
        ..Keep::default()
    });
    prop_oneof![
        8 => run,
        1 => any::<usize>().prop_map(Step::Cut),
        3 => (any::<usize>(), prop::option::of(any::<usize>())).prop_map(|(a, b)| Step::Merge(a, b)),
        2 => (keep, 1_usize..4).prop_map(|(keep, after)| Step::Prune(keep, after)),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Step::Flip(a, b)),
        1 => Just(Step::Litter),
    ]
}

#[derive(Default)]
struct Model {
    /// The images of each point, by disk.
    points: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    /// The guest's disks now.
    disks: BTreeMap<u32, Vec<u8>>,
    newest: Option<String>,
    runs: u64,
}

impl Model {
    fn nth(&self, n: usize) -> Option<String> {
        let count = self.points.len();
        n.checked_rem(count).and_then(|n| self.points.keys().nth(n).cloned())
    }

    /// Six runs a day.
    fn next_point(&mut self) -> String {
        self.runs += 1;
        format!("202611{:02}T{:02}0000Z", 1 + self.runs / 6, self.runs % 6 * 4)
    }

    fn run(&mut self, repo: &Repo, full: bool, cut: Option<usize>) {
        let point = self.next_point();
        let parent = self.newest.clone().filter(|_| !full);
        let before = parent.as_ref().map(|parent| self.points[parent].clone()).unwrap_or_default();
        let to = format!("s-{point}");
        let (mut disks, mut payload) = (Vec::new(), Vec::new());
        for (index, image) in &self.disks {
            let from = before.get(index).map(|bytes| (format!("s-{}", parent.as_ref().unwrap()), bytes));
            let stream = diff(from.as_ref().map(|(name, bytes)| (name.as_str(), bytes.as_slice())), &to, image);
            let disk = one(image.len() as u64, from.map(|(name, _)| name), &to);
            disks.push(ReceiveDisk { index: *index, ..disk });
            payload.extend(chunked(&stream));
        }
        let request = repo.receive(&point, parent.as_deref(), disks);
        match cut {
            Some(cut) => {
                payload.truncate(cut % payload.len());
                repo.send(&request, &payload).unwrap_err();
            }
            None => {
                repo.send(&request, &payload).unwrap();
                self.points.insert(point.clone(), self.disks.clone());
                self.newest = Some(point);
            }
        }
    }

    fn play(&mut self, repo: &Repo, step: Step) {
        match step {
            Step::Run { writes, zeros, blocks, full, second } => {
                let image = self.disks.entry(0).or_default();
                image.resize(blocks.map_or(image.len().max(BLOCK), |blocks| blocks * BLOCK), 0);
                // The last block of an image need not be whole.
                if blocks.is_some_and(|blocks| blocks % 3 == 0) {
                    image.truncate(image.len() - 512);
                }
                for (n, (list, zero)) in [(writes, false), (zeros, true)].into_iter().enumerate() {
                    for (from, count) in list {
                        let from = (from * BLOCK).min(image.len());
                        let to = (from + count * BLOCK).min(image.len());
                        let bytes = noise(self.runs * 100 + from as u64 + n as u64, to - from);
                        image[from..to].copy_from_slice(&if zero { vec![0; to - from] } else { bytes });
                    }
                }
                match second {
                    true => self.disks.entry(1).or_insert_with(|| noise(self.runs, 3 * BLOCK)).rotate_left(700),
                    false => drop(self.disks.remove(&1)),
                }
                self.run(repo, full, None);
            }
            Step::Cut(cut) if !self.disks.is_empty() => self.run(repo, false, Some(cut)),
            Step::Cut(_) => {}
            Step::Merge(point, onto) => {
                let Some(point) = self.nth(point) else { return };
                let chain = store::show(&repo.at(&point)).unwrap().chain;
                let onto = onto.and_then(|n| chain[..chain.len() - 1].get(n % chain.len()).cloned());
                let merged = repo.merge(&point, onto.as_deref()).unwrap();
                assert_eq!(merged.point.parent, onto);
            }
            Step::Prune(keep, after) => {
                if self.points.is_empty() {
                    return;
                }
                let pruned = repo.prune(keep, Some(after));
                let guest = &pruned.guests[0];
                assert_eq!(guest.skipped, None);
                guest.removed.iter().for_each(|point| drop(self.points.remove(point)));
                assert!(guest.kept.iter().map(|k| &k.point).eq(self.points.keys()));
            }
            Step::Flip(point, at) => {
                let Some(point) = self.nth(point) else { return };
                let path = repo.path(&point).join("disk-0.rbdiff.zst");
                let whole = fs::read(&path).unwrap();
                let mut bytes = whole.clone();
                bytes[at % whole.len()] ^= 1 << (at % 8);
                fs::write(&path, bytes).unwrap();
                self.check(repo, Some(&point));
                fs::write(&path, whole).unwrap();
            }
            Step::Litter => {
                let directory = repo.path(".partial-20200101T000000Z");
                if directory.parent().unwrap().exists() && !directory.exists() {
                    fs::create_dir(&directory).unwrap();
                }
            }
        }
    }

    /// What is listed is what there is; what is restorable is restored to the byte, and nothing else is.
    fn check(&self, repo: &Repo, damaged: Option<&str>) {
        if self.points.is_empty() {
            return;
        }
        assert!(repo.names().iter().eq(self.points.keys()));
        let verified = repo.verify(Depth::All);
        assert!(verified.damages.iter().all(|d| Some(d.point.as_str()) == damaged), "{:#?}", verified.damages);
        assert_eq!(verified.damages.is_empty(), damaged.is_none());
        for one in &verified.restorable {
            let chain = store::show(&repo.at(&one.point)).unwrap().chain;
            assert_eq!(one.restorable, damaged.is_none_or(|d| !chain.iter().any(|c| c == d)), "{}", one.point);
            for (disk, image) in &self.points[&one.point] {
                match repo.read(&one.point, *disk) {
                    Ok(read) => assert!(read == *image, "point {} disk {disk}", one.point),
                    Err(error) => assert!(!one.restorable, "point {} disk {disk}: {error}", one.point),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_point_restores_to_its_bytes_whatever_happened(steps in prop::collection::vec(step(), 1..24)) {
        let (repo, mut model) = (Repo::new(), Model::default());
        for step in steps {
            model.play(&repo, step);
            model.check(&repo, None);
        }
    }
}
