//! What is said at the start about tiers that cannot be used.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::world::{Dir, World, buffer, tier};
use crate::buffer::content::Held;
use crate::buffer::{Store, make_directories};
use crate::config::model::TierKind;

fn refusal(tiers: Vec<crate::config::model::Tier>) -> String {
    Store::open(&buffer(1 << 20, 1 << 16, tiers)).expect_err("refused").to_string()
}

#[test]
fn a_missing_directory_is_named_with_the_way_out() {
    let dir = Dir::new();
    let path = dir.path.join("none");
    let said = refusal(vec![tier(TierKind::Flash, &path, 1 << 20)]);
    let path = path.display();
    assert_eq!(said, format!("buffer.tier[0].path: {path}: no such directory (mkdir -p {path})"));
}

#[test]
fn a_directory_is_made_where_only_its_own_name_is_missing() {
    let dir = Dir::new();
    let present = dir.path.join("present");
    fs::create_dir(&present).unwrap();
    fs::set_permissions(&present, fs::Permissions::from_mode(0o750)).unwrap();
    let (missing, far) = (dir.path.join("missing"), dir.path.join("far/away"));
    let mode = |path| fs::metadata(path).unwrap().mode() & 0o777;
    let tiers = |last| vec![tier(TierKind::Flash, &present, 1 << 20), tier(TierKind::Disk, last, 1 << 20)];
    let model = buffer(1 << 20, 1 << 16, tiers(&missing));
    drop(make_directories(&model));
    assert_eq!((mode(&present), mode(&missing)), (0o750, 0o700));
    drop(Store::open(&model).unwrap());
    drop(make_directories(&buffer(1 << 20, 1 << 16, tiers(&far))));
    assert!(!dir.path.join("far").exists());
    assert!(refusal(tiers(&far)).contains("no such directory"));
}

#[test]
fn a_file_is_no_directory() {
    let dir = Dir::new();
    let path = dir.path.join("file");
    fs::write(&path, "").unwrap();
    let said = refusal(vec![tier(TierKind::Flash, &path, 1 << 20)]);
    assert!(said.contains("not a directory"), "{said}");
}

#[test]
fn a_directory_serves_one_device_and_one_tier() {
    let world = World::new(1 << 20, 1 << 16, 1 << 20, 0);
    let path = &world.dirs[0].path;
    let said = refusal(vec![tier(TierKind::Disk, path, 1 << 20)]);
    assert!(said.contains("in use by ") && said.contains(&format!("(pid {})", std::process::id())), "{said}");

    let dir = Dir::new();
    let twice = vec![tier(TierKind::Flash, &dir.path, 1 << 20), tier(TierKind::Disk, &dir.path, 1 << 20)];
    let said = refusal(twice);
    assert!(said.starts_with("buffer.tier[1].path: ") && said.contains("same directory as buffer.tier[0]"), "{said}");
}

#[test]
fn a_directory_can_be_handed_over() {
    let world = World::new(1 << 20, 1 << 16, 1 << 20, 0);
    let model = buffer(1 << 20, 1 << 16, vec![tier(TierKind::Flash, &world.dirs[0].path, 1 << 20)]);
    assert!(Store::open(&model).is_err());
    world.store.unlock_directories();
    drop(Store::open(&model).unwrap());
}

#[test]
fn a_lock_goes_with_its_store() {
    let dir = Dir::new();
    let model = buffer(1 << 20, 1 << 16, vec![tier(TierKind::Flash, &dir.path, 1 << 20)]);
    for _ in 0..3 {
        let store = Store::open(&model).unwrap();
        drop(Held::new(&store));
    }
}

#[test]
fn a_read_only_file_system_and_a_size_that_holds_nothing_are_told() {
    let dir = Dir::new();
    let said = refusal(vec![tier(TierKind::Flash, &dir.path, 100)]);
    assert!(said.starts_with("buffer.tier[0].size: 100 bytes hold nothing"), "{said}");
    let Some(dir) = Dir::tmpfs(c"ro,size=1m") else { return };
    let said = refusal(vec![tier(TierKind::Flash, &dir.path, 1 << 20)]);
    assert!(said.contains("read-only"), "{said}");
}

#[test]
fn what_a_killed_process_left_is_swept_away() {
    let dir = Dir::new();
    fs::write(dir.path.join(".cmim-tier-1-0"), "left").unwrap();
    fs::write(dir.path.join("other"), "somebody else's").unwrap();
    let model = buffer(1 << 20, 1 << 16, vec![tier(TierKind::Flash, &dir.path, 1 << 20)]);
    drop(Store::open(&model).unwrap());
    let left: Vec<_> = fs::read_dir(&dir.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["other"]);
}

#[test]
fn without_file_tiers_there_is_ram_alone() {
    let world = World::new(1000, 100, 0, 0);
    super::world::run(async {
        let mut held = Held::new(&world.store);
        super::world::append_content(&mut held, 1, 1000, 300).await.unwrap();
        assert!(super::world::append_content(&mut held, 1, 1, 1).await.is_err());
    });
    world.comes_to_rest();
}
