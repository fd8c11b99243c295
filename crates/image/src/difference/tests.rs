//! Upper directories made by hand, as overlayfs would leave them.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{FileType, XattrFlags, mknodat};

use super::*;

struct World {
    _directory: tempfile::TempDir,
    rootfs: Rootfs,
}

/// `None` for somebody who may not make device nodes.
fn world() -> Option<World> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let path = directory.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let rootfs = Rootfs {
        lower: vec![at("top"), at("bottom")],
        upper: at("upper"),
        work: at("work"),
    };
    Some(World {
        rootfs,
        _directory: directory,
    })
}

impl World {
    fn write(&self, layer: &Path, path: &str) {
        let path = layer.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }

    fn whiteout(&self, layer: &Path, path: &str) {
        let path = layer.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    }

    fn check(&self, expect: &[&str]) {
        let found: Vec<String> = changes(&self.rootfs)
            .unwrap()
            .iter()
            .map(|change| {
                let letter = match change.kind {
                    ChangeKind::Modified => 'C',
                    ChangeKind::Added => 'A',
                    ChangeKind::Deleted => 'D',
                };
                format!("{letter} {}", change.path.display())
            })
            .collect();
        assert_eq!(found, expect);
    }

    /// Makes a directory of the upper layer look as it does below.
    fn untouched(&self, path: &str) {
        let below = fs::metadata(self.rootfs.lower[0].join(path)).unwrap();
        let upper = fs::File::open(self.rootfs.upper.join(path)).unwrap();
        upper.set_modified(below.modified().unwrap()).unwrap();
    }
}

#[test]
fn changes_are_told_as_docker_tells_them() {
    let Some(world) = world() else { return };
    let (top, bottom) = (&world.rootfs.lower[0], &world.rootfs.lower[1]);
    let upper = &world.rootfs.upper;
    world.write(top, "a/changed");
    world.write(top, "a/gone");
    world.write(bottom, "b/hidden");
    world.whiteout(top, "b/hidden");
    world.write(top, "c/file");
    world.write(upper, "a/changed");
    world.whiteout(upper, "a/gone");
    world.write(upper, "b/hidden");
    world.write(upper, "new/x");
    world.write(upper, "c/file");
    symlink("nowhere", upper.join("link")).unwrap();
    world.untouched("a");
    world.untouched("c");
    world.check(&[
        "C /a/changed",
        "C /a",
        "D /a/gone",
        "C /b",
        "A /b/hidden",
        "C /c/file",
        "A /link",
        "A /new",
        "A /new/x",
    ]);
}

#[test]
fn a_directory_that_was_made_anew_hides_what_it_had() {
    let Some(world) = world() else { return };
    world.write(&world.rootfs.lower[0], "d/old");
    world.write(&world.rootfs.upper, "d/old");
    let directory = world.rootfs.upper.join("d");
    rustix::fs::setxattr(
        &directory,
        "trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )
    .unwrap();
    world.check(&["C /d", "A /d/old"]);
}

#[test]
fn a_layer_of_changes_unpacks_to_the_same_upper_directory() {
    let Some(world) = world() else { return };
    let (top, upper) = (&world.rootfs.lower[0], &world.rootfs.upper);
    world.write(top, "a/gone");
    world.write(top, "d/old");
    world.write(upper, "a/new");
    fs::hard_link(upper.join("a/new"), upper.join("a/same")).unwrap();
    world.whiteout(upper, "a/gone");
    world.write(upper, "d/x");
    let directory = upper.join("d");
    rustix::fs::setxattr(
        &directory,
        "trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )
    .unwrap();
    let mut layer = Vec::new();
    let difference = Difference::read(&world.rootfs).unwrap();
    difference.write(&mut layer).unwrap();

    let again = world._directory.path().join("again");
    fs::create_dir(&again).unwrap();
    crate::unpack::unpack(&*layer, &again).unwrap();
    let rootfs = Rootfs {
        upper: again.clone(),
        ..world.rootfs.clone()
    };
    // The time of the first is not the same to the nanosecond.
    let told = |rootfs: &Rootfs| {
        let changes = changes(rootfs).unwrap();
        let told = changes
            .iter()
            .map(|change| (change.path.clone(), change.kind));
        told.collect::<Vec<_>>()
    };
    assert_eq!(told(&rootfs), told(&world.rootfs));
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(again.join("a/same")).unwrap().nlink(), 2);
}
