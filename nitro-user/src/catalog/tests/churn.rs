use std::{collections::BTreeMap, fs, os::unix::fs::symlink};

use super::*;

const MIB: u64 = 1 << 20;

/// A plain generator, so that a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// One arbitrary change somewhere below `root`; many fail, which is as good.
fn disturb(root: &Path, random: &mut Random) {
    let path = |random: &mut Random| {
        let depth = 1 + random.below(3);
        (0..depth).fold(root.to_owned(), |path, _| path.join(format!("n{}", random.below(4))))
    };
    let (one, two) = (path(random), path(random));
    let _ = match random.below(9) {
        0 | 1 => fs::create_dir(&one),
        2 | 3 => File::create(&one).and_then(|file| file.set_len((1 + random.below(3)) * MIB)),
        4 | 5 => fs::rename(&one, &two),
        6 => fs::remove_file(&one),
        7 => fs::hard_link(&one, &two),
        _ if random.below(3) == 0 => fs::remove_dir_all(&one),
        _ => symlink(&two, &one),
    };
}

#[test]
fn after_any_churn_the_events_add_up_to_what_is_there() {
    for seed in 1..=3 {
        let (_dir, base) = directory();
        let root = base.join("root");
        fs::create_dir(&root).unwrap();
        let (mut running, before, _) = Running::start(&[&root]);
        let mut told: BTreeMap<FileId, u64> = BTreeMap::new();
        let note = |told: &mut BTreeMap<FileId, u64>, event| match event {
            CatalogEvent::Watched(files) => {
                for (file, size) in files {
                    assert!(told.insert(file, size).is_none(), "{file:?} was told twice");
                }
            }
            CatalogEvent::Unwatched(files) => {
                for file in files {
                    assert!(
                        told.remove(&file).is_some(),
                        "{file:?} was told to go without having come"
                    );
                }
            }
            _ => {}
        };
        before.into_iter().for_each(|event| note(&mut told, event));
        let mut random = Random(seed);
        for step in 0..10_000 {
            disturb(&root, &mut random);
            if step % 100 == 0 {
                while let Ok(event) = running.events.try_recv() {
                    note(&mut told, event);
                }
            }
        }
        let there = |root: &Path| -> Vec<FileId> {
            let mut files: Vec<_> = scan(&[root])
                .0
                .files()
                .filter(|(_, size)| *size >= MIB)
                .map(|(file, _)| file)
                .collect();
            files.sort_unstable();
            files
        };
        let now = there(&root);
        assert!(
            !now.is_empty(),
            "a churn that leaves nothing tests nothing: take another seed than {seed}"
        );
        let deadline = Instant::now() + DEADLINE;
        while !told.keys().eq(now.iter()) {
            if Instant::now() >= deadline {
                let (catalog, _) = scan(&[&root]);
                let lost = now.iter().filter(|file| !told.contains_key(file));
                let lost: Vec<_> = lost.map(|file| catalog.place(*file).unwrap().below).collect();
                let stale = told.keys().filter(|file| !now.contains(file)).count();
                panic!("seed {seed}: {lost:?} were not told of, and {stale} not to have gone");
            }
            match running.events.try_recv() {
                Ok(event) => note(&mut told, event),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        // And the places are right, too.
        for file in now {
            let found = running.describe(file).unwrap();
            let place = &found.model.parts[found.position].place;
            assert_eq!(id(&place.root.join(&place.below)), file);
        }
        running.service.stop();
    }
}
