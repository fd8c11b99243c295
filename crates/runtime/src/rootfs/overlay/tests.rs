//! Both ways to mount an overlay, as root. The tests run in threads, where the classic way
//! refuses to fork; it is run in the integration test's single-threaded process.

use std::fs;
use std::os::fd::AsRawFd;

use super::*;

struct Layers {
    _dir: tempfile::TempDir,
    lower: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
}

fn layers(count: usize, prefix: &str) -> Layers {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let path = dir.path().join(prefix).join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let lower: Vec<_> = (0..count)
        .map(|number| make(&format!("layer:{number}")))
        .collect();
    for (number, layer) in lower.iter().enumerate() {
        fs::write(layer.join(format!("file{number}")), "x").unwrap();
        fs::write(layer.join("which"), number.to_string()).unwrap();
    }
    Layers {
        lower,
        upper: make("upper"),
        work: make("work"),
        _dir: dir,
    }
}

fn check(layers: &Layers, volatile: bool) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Layers {
        lower, upper, work, ..
    } = layers;
    let mount = mount(&Overlay {
        lower,
        upper: Some(Upper {
            directory: upper,
            work,
            volatile,
        }),
    })
    .unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    assert_eq!(
        fs::read_to_string(root.join("which")).unwrap(),
        "0",
        "the topmost layer wins"
    );
    for number in 0..lower.len() {
        assert!(root.join(format!("file{number}")).exists());
    }
    fs::write(root.join("new"), "y").unwrap();
    assert_eq!(fs::read_to_string(upper.join("new")).unwrap(), "y");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(
        !mounts.contains(&*upper.to_string_lossy()),
        "nothing is seen in the mount table"
    );
}

#[test]
fn many_layers_and_long_paths_make_one_root() {
    check(&layers(2, ""), false);
    check(
        &layers(
            120,
            &["d".repeat(100), "e".repeat(100), "f".repeat(100)].join("/"),
        ),
        false,
    );
}

#[test]
fn a_volatile_root_can_be_mounted_again() {
    let layers = layers(1, "");
    check(&layers, true);
    check(&layers, true);
}

#[test]
fn the_kernels_release_decides_how_layers_are_named() {
    for (release, expected) in [
        ("6.1.0-56-cloud-amd64", false),
        ("6.6.99", false),
        ("6.7.0-rc1", true),
        ("6.18.44-fc-v595", true),
        ("5.15.0", false),
        ("7.0", true),
    ] {
        assert_eq!(takes_layers_one_by_one(release), expected, "{release}");
    }
}
