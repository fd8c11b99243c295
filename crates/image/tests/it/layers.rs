//! What a layer's members become, and what hostile ones do not become.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::support::{Fixture, Member, Tar, directory, file, gnu_tar, link};

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn is_whiteout(path: &Path) -> bool {
    let meta = fs::symlink_metadata(path).unwrap();
    meta.file_type().is_char_device() && meta.rdev() == 0
}

#[test]
fn owners_modes_times_and_kinds_survive() {
    let fixture = Fixture::new();
    let capability = [
        1u8, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let layer = Tar::of(&[
        Member {
            mode: 0o1777,
            uid: 5,
            ..directory("tmp/")
        },
        Member {
            mode: 0o6755,
            uid: 100_000,
            gid: 70_000,
            pax: &[
                ("mtime", b"1234567890.123456789"),
                ("SCHILY.xattr.security.capability", &capability),
                ("SCHILY.xattr.user.note", b"x\ny=z"),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ],
            ..file("tmp/su", b"data")
        },
        link(b'1', "tmp/hard", "tmp/su"),
        link(b'2', "tmp/soft", "/etc/passwd"),
        Member {
            kind: b'3',
            mode: 0o666,
            device: (1, 3),
            ..file("tmp/null", b"")
        },
        Member {
            kind: b'4',
            device: (7, 300),
            ..file("tmp/loop", b"")
        },
        Member {
            kind: b'6',
            mode: 0o620,
            gid: 9,
            ..file("tmp/pipe", b"")
        },
    ]);
    let root = fixture.layer(&layer).unwrap();
    let meta = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    let tmp = meta("tmp");
    assert_eq!(
        (tmp.mode() & 0o7777, tmp.uid(), tmp.mtime()),
        (0o1777, 5, 1_000_000_000)
    );
    let su = meta("tmp/su");
    assert_eq!(
        (su.mode() & 0o7777, su.uid(), su.gid()),
        (0o6755, 100_000, 70_000)
    );
    assert_eq!(
        (su.mtime(), su.mtime_nsec(), su.nlink()),
        (1_234_567_890, 123_456_789, 2)
    );
    let path = root.join("tmp/su");
    assert_eq!(xattr(&path, "security.capability").unwrap(), capability);
    assert_eq!(xattr(&path, "user.note").unwrap(), b"x\ny=z");
    assert_eq!(xattr(&path, "trusted.overlay.redirect"), None);
    assert_eq!(meta("tmp/hard").ino(), su.ino());
    assert_eq!(
        fs::read_link(root.join("tmp/soft")).unwrap(),
        Path::new("/etc/passwd")
    );
    assert_eq!(meta("tmp/soft").mtime(), 1_000_000_000);
    let null = meta("tmp/null");
    assert_eq!((null.rdev(), null.mode() & 0o777), (0x103, 0o666));
    assert!(meta("tmp/loop").file_type().is_block_device());
    let pipe = meta("tmp/pipe");
    assert!(pipe.file_type().is_fifo() && pipe.gid() == 9 && pipe.mode() & 0o777 == 0o620);
}

#[test]
fn whiteouts_become_overlayfs_ones_in_any_order() {
    let fixture = Fixture::new();
    let layer = Tar::of(&[
        directory("a"),
        file("a/.wh.gone", b""),
        directory("b"),
        file("b/.wh..wh..opq", b""),
        file("b/kept", b"1"),
        file("a/.wh.both", b""),
        file("a/both", b"2"),
        directory("c"),
        directory("c/d"),
        file("c/.wh.d", b""),
        file("c/.wh.e", b""),
        directory("c/e"),
        file("c/.wh..wh.plnk", b""),
        file("a/file", b""),
        file("a/.wh.file", b""),
    ]);
    let root = fixture.layer(&layer).unwrap();
    assert!(is_whiteout(&root.join("a/gone")));
    assert_eq!(
        xattr(&root.join("b"), "trusted.overlay.opaque").unwrap(),
        b"y"
    );
    assert_eq!(xattr(&root.join("a"), "trusted.overlay.opaque"), None);
    assert_eq!(fs::read(root.join("a/both")).unwrap(), b"2");
    assert_eq!(fs::read(root.join("a/file")).unwrap(), b"");
    for directory in ["c/d", "c/e"] {
        assert!(root.join(directory).is_dir());
        assert_eq!(
            xattr(&root.join(directory), "trusted.overlay.opaque").unwrap(),
            b"y"
        );
    }
    assert!(!root.join("c/.wh..wh.plnk").exists() && !root.join("c/plnk").exists());
}

#[test]
fn later_members_replace_earlier_ones() {
    let fixture = Fixture::new();
    let layer = Tar::of(&[
        file("x", b"1"),
        file("x", b"22"),
        directory("d"),
        file("d/inner", b""),
        file("d", b"now a file"),
        file("f", b""),
        directory("f"),
        file("f/inner", b"3"),
        link(b'2', "s", "x"),
        file("s", b"no link"),
        link(b'1', "x", "x"),
    ]);
    let root = fixture.layer(&layer).unwrap();
    assert_eq!(fs::read(root.join("x")).unwrap(), b"22");
    assert_eq!(fs::read(root.join("d")).unwrap(), b"now a file");
    assert_eq!(fs::read(root.join("f/inner")).unwrap(), b"3");
    assert_eq!(
        xattr(&root.join("f"), "trusted.overlay.opaque").unwrap(),
        b"y"
    );
    assert!(fs::symlink_metadata(root.join("s")).unwrap().is_file());
}

#[test]
fn links_never_lead_out_of_the_layer() {
    let fixture = Fixture::new();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let layer = Tar::of(&[
        link(b'2', "out", target),
        directory(&format!(".{target}")),
        file("out/file", b"inside"),
        link(b'2', "up", "../../../../../../../../tmp"),
        directory("tmp"),
        file("up/berth-image-test-escape", b"inside"),
    ]);
    let root = fixture.layer(&layer).unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(
        fs::read(root.join(&target[1..]).join("file")).unwrap(),
        b"inside"
    );
    assert!(root.join("tmp/berth-image-test-escape").exists());
    assert!(!Path::new("/tmp/berth-image-test-escape").exists());
}

#[test]
fn hostile_members_are_refused_and_leave_nothing() {
    let nul = "a\0b".as_bytes();
    let cases: &[(&[Member<'_>], &str)] = &[
        (&[file("../escape", b"")], "leads out of the layer"),
        (&[file("a/../../escape", b"")], "leads out of the layer"),
        (
            &[link(b'1', "l", "../../etc/passwd")],
            "hard link leads out",
        ),
        (&[link(b'1', "l", "/etc/passwd")], "not in the layer"),
        (
            &[link(b'2', "etc", "/usr"), link(b'1', "l", "etc/passwd")],
            "not in the layer",
        ),
        (&[directory("d"), link(b'1', "l", "d")], "cannot be linked"),
        (&[file("a", b""), file("a/b", b"")], "open the directory of"),
        (
            &[link(b'2', "loop", "loop"), file("loop/b", b"")],
            "open the directory of",
        ),
        (&[file(".wh.", b"")], "whiteout without a name"),
        (&[file("x/.wh...", b"")], "whiteout without a name"),
        (
            &[Member {
                kind: b'M',
                ..file("x", b"")
            }],
            "unsupported type",
        ),
        (
            &[Member {
                pax: &[("path", nul)],
                ..file("x", b"")
            }],
            "NUL",
        ),
        (
            &[Member {
                pax: &[("uid", b"4294967295")],
                ..file("x", b"")
            }],
            "out of range",
        ),
        (
            &[Member {
                pax: &[("size", b"18446744073709551615")],
                ..file("x", b"")
            }],
            "malformed size",
        ),
        (
            &[
                Member {
                    kind: b'0',
                    ..file("./", b"")
                },
                Member {
                    kind: b'2',
                    link: "/",
                    ..file(".", b"")
                },
            ],
            "has to be a directory",
        ),
        (
            &[Member {
                pax: &[
                    ("GNU.sparse.map", b"0,10,5,10"),
                    ("GNU.sparse.size", b"100"),
                ],
                ..file("x", b"")
            }],
            "sparse map",
        ),
        (
            &[Member {
                pax: &[
                    ("GNU.sparse.map", b"0,18446744073709551615"),
                    ("GNU.sparse.size", b"100"),
                ],
                ..file("x", b"")
            }],
            "sparse map",
        ),
    ];
    let fixture = Fixture::new();
    for (members, sentence) in cases {
        let error = fixture.layer(&Tar::of(members)).unwrap_err();
        assert!(error.contains(sentence), "{:?}: {error}", members[0].path);
        assert_eq!(
            fixture.content(),
            Vec::<String>::new(),
            "{:?}",
            members[0].path
        );
    }
    let long = "n".repeat(256);
    let member = Member {
        pax: &[("path", long.as_bytes())],
        ..file("x", b"")
    };
    assert!(fixture.layer(&Tar::of(&[member])).is_err());
}

#[test]
fn cut_and_flipped_layers_are_refused() {
    let fixture = Fixture::new();
    let layer = Tar::of(&[directory("d"), file("d/f", &[7; 3000]), file("g", b"x")]);
    for cut in [1, 511, 513, 1030, 2000, 4000] {
        let error = fixture.load_with_other_layer(&layer, &layer[..cut]);
        assert!(
            error.contains("EOF") || error.contains("diff id"),
            "{cut}: {error}"
        );
    }
    let mut flipped = layer.clone();
    flipped[1200] ^= 1;
    assert!(
        fixture
            .load_with_other_layer(&layer, &flipped)
            .contains("diff id")
    );
    assert_eq!(fixture.content(), Vec::<String>::new());
}

impl Fixture {
    /// An archive whose configuration tells of `announced`, but which carries `carried`.
    fn load_with_other_layer(&self, announced: &[u8], carried: &[u8]) -> String {
        let config = crate::support::config(&[announced.to_vec()]);
        let archive = crate::support::docker_archive_of("test", &[carried.to_vec()], &config);
        let error = self.load(&archive).unwrap_err();
        berth_base::Chain(&error).to_string()
    }
}

#[test]
fn sparse_files_of_every_format_keep_their_holes() {
    let fixture = Fixture::new();
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("sparse");
    let file = fs::File::create(&path).unwrap();
    use std::os::unix::fs::FileExt;
    for part in 0..40u64 {
        file.write_all_at(&[u8::try_from(part + 1).unwrap(); 4096], part << 20)
            .unwrap();
    }
    file.set_len(50 << 20).unwrap();
    drop(file);
    let expect = fs::read(&path).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let arguments = [format, &["--sparse", "sparse"]].concat();
        let layer = gnu_tar(source.path(), &arguments);
        assert!(layer.len() < 1 << 20, "{format:?}");
        let root = fixture.layer(&layer).unwrap();
        let unpacked = root.join("sparse");
        assert!(fs::read(&unpacked).unwrap() == expect, "{format:?}");
        let blocks = fs::metadata(&unpacked).unwrap().blocks();
        assert!(blocks < 2000, "{format:?} takes {blocks} blocks");
    }
}

#[test]
fn gnu_tars_long_names_links_and_numbers_survive() {
    let fixture = Fixture::new();
    let source = tempfile::tempdir().unwrap();
    let deep = (0..12).map(|n| format!("directory-number-{n}-{}", "x".repeat(20)));
    let deep: std::path::PathBuf = deep.collect();
    fs::create_dir_all(source.path().join(&deep)).unwrap();
    let name = deep.join("ü file");
    fs::write(source.path().join(&name), "deep").unwrap();
    std::os::unix::fs::symlink("y".repeat(300), source.path().join("long-link")).unwrap();
    std::os::unix::fs::chown(
        source.path().join(&name),
        Some(3_000_000_000),
        Some(4_000_000),
    )
    .unwrap();
    for format in ["--format=gnu", "--format=posix"] {
        let root = fixture
            .layer(&gnu_tar(source.path(), &[format, "."]))
            .unwrap();
        let meta = fs::metadata(root.join(&name)).unwrap();
        assert_eq!(
            (meta.uid(), meta.gid()),
            (3_000_000_000, 4_000_000),
            "{format}"
        );
        let link = fs::read_link(root.join("long-link")).unwrap();
        assert_eq!(link.as_os_str().len(), 300, "{format}");
    }
}

#[test]
fn implied_directories_look_as_they_do_below() {
    let fixture = Fixture::new();
    let base = Tar::of(&[
        Member {
            mode: 0o700,
            uid: 3,
            ..directory("./")
        },
        Member {
            mode: 0o1777,
            ..directory("tmp")
        },
        Member {
            mode: 0o750,
            uid: 7,
            gid: 8,
            ..directory("srv")
        },
    ]);
    let other = Tar::of(&[directory("./"), directory("srv")]);
    let top = Tar::of(&[
        file("tmp/x", b""),
        file("srv/y", b""),
        file("new/dir/z", b""),
    ]);
    let image = fixture.image(&[base.clone(), top.clone()]);
    let look = |path: &str| {
        let meta = fs::metadata(image.layers[0].join(path)).unwrap();
        (meta.mode() & 0o7777, meta.uid(), meta.gid())
    };
    assert_eq!(look(""), (0o700, 3, 0));
    assert_eq!(look("tmp"), (0o1777, 0, 0));
    assert_eq!(look("srv"), (0o750, 7, 8));
    assert_eq!(look("new/dir"), (0o755, 0, 0));
    let again = fixture.image(&[other, top.clone()]);
    assert_ne!(
        again.layers[0], image.layers[0],
        "another base has other owners"
    );
    let meta = fs::metadata(again.layers[0].join("srv")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o755, 0));
    let base_again = fixture.image(&[base, top]);
    assert_eq!(base_again.layers, image.layers);
}

#[test]
fn directories_that_are_implied_behind_a_link_are_found_again() {
    let fixture = Fixture::new();
    let layer = Tar::of(&[
        directory("usr"),
        link(b'2', "lib", "usr/lib64"),
        directory("usr/lib64"),
        file("lib/modules/x/y", b"1"),
    ]);
    let root = fixture.layer(&layer).unwrap();
    assert!(root.join("usr/lib64/modules/x/y").exists());
}

#[test]
fn a_layer_that_occurs_twice_is_mounted_once() {
    let fixture = Fixture::new();
    let empty = Tar::of(&[]);
    let base = Tar::of(&[file("a", b"1")]);
    let image = fixture.image(&[empty.clone(), base, empty]);
    assert_eq!(image.layers.len(), 2);
}

#[test]
fn snapshots_take_the_look_of_the_topmost_root() {
    let fixture = Fixture::new();
    let image = fixture.image(&[Tar::of(&[Member {
        mode: 0o711,
        uid: 4,
        ..directory(".")
    }])]);
    let rootfs = fixture
        .images
        .prepare_snapshot(&image, "container")
        .unwrap();
    let meta = fs::metadata(&rootfs.upper).unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.uid()), (0o711, 4));
    assert_eq!(rootfs.lower, image.layers);
    assert!(
        fixture
            .images
            .prepare_snapshot(&image, "container")
            .is_err()
    );
    fixture.images.remove_snapshot("container").unwrap();
    fixture.images.remove_snapshot("container").unwrap();
    assert!(!rootfs.upper.exists());
}
