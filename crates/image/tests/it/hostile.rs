//! Archives that would exhaust whoever reads them: memory, time, stack or disk.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_image::Kind;
use berth_oci::media_type::{OCI_INDEX, OCI_MANIFEST};
use berth_oci::{Descriptor, Digest};
use serde_json::{Value, json};

use crate::support::{
    Fixture, Member, Tar, config, directory, docker_archive, docker_archive_of, file, link,
};

/// What each attack may take at most; they would take hours, or never end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Loads an archive that is refused for its own fault and leaves nothing.
fn refused(fixture: &Fixture, archive: &[u8], sentence: &str) {
    let start = Instant::now();
    let error = fixture.load(archive).unwrap_err();
    let text = berth_base::Chain(&error).to_string();
    assert!(text.contains(sentence), "{sentence}: {text}");
    assert_eq!(error.kind(), Kind::Invalid, "{text}");
    assert_eq!(fixture.content(), Vec::<String>::new(), "{sentence}");
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

fn refused_layer(members: &[Member<'_>], sentence: &str) {
    let archive = docker_archive("test", &[Tar::of(members)]);
    refused(&Fixture::new(), &archive, sentence);
}

/// Blobs as an OCI layout; `top` are the entries of its index.
fn layout(blobs: &[Vec<u8>], top: &[Descriptor]) -> Vec<u8> {
    let mut tar = Tar::default();
    for blob in blobs {
        let path = format!("blobs/sha256/{}", Digest::of(blob).hex());
        tar.add(&file(&path, blob));
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": top}).to_string();
    tar.add(&file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#));
    tar.add(&file("index.json", index.as_bytes()));
    tar.finish()
}

fn blob(media_type: &str, value: &Value) -> (Descriptor, Vec<u8>) {
    let bytes = value.to_string().into_bytes();
    (Descriptor::of(media_type, &bytes), bytes)
}

#[test]
fn indexes_that_list_each_other_thousands_of_times_are_walked_once() {
    let layer = Tar::of(&[file("a", b"x")]);
    let config = config(std::slice::from_ref(&layer));
    let (mut top, manifest) = blob(
        OCI_MANIFEST,
        &json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor::of("application/vnd.oci.image.config.v1+json", &config),
            "layers": [Descriptor::of("application/vnd.oci.image.layer.v1.tar", &layer)],
        }),
    );
    let mut blobs = vec![layer, config, manifest];
    // 2,000 to the power of three visits.
    for _ in 0..3 {
        let entries = vec![top; 2000];
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
        let (descriptor, bytes) = blob(OCI_INDEX, &index);
        top = descriptor;
        blobs.push(bytes);
    }
    let fixture = Fixture::new();
    let start = Instant::now();
    let id = fixture.load(&layout(&blobs, &[top])).unwrap()[0].id.clone();
    let image = fixture.images.resolve(&id.to_string(), None).unwrap();
    assert!(image.layers[0].join("a").exists());
    fixture.images.remove(&id.to_string(), true, &[]).unwrap();
    assert_eq!(fixture.content(), Vec::<String>::new());
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

#[test]
fn more_layers_than_can_be_stacked_are_refused() {
    let layer = Tar::of(&[]);
    let many = vec![layer.clone(); 501];
    let archive = docker_archive_of("test", std::slice::from_ref(&layer), &config(&many));
    refused(&Fixture::new(), &archive, "max depth exceeded");
    let names = vec!["0"; 200_000];
    let manifest = json!([{"Config": "c", "RepoTags": ["a"], "Layers": names}]).to_string();
    let archive = Tar::of(&[
        file("0", &layer),
        file("c", &config(std::slice::from_ref(&layer))),
        file("manifest.json", manifest.as_bytes()),
    ]);
    refused(&Fixture::new(), &archive, "max depth exceeded");
    let images = vec![json!({"Config": "c"}); 20_000];
    let manifest = Value::from(images).to_string();
    let archive = Tar::of(&[
        file("c", &config(&[])),
        file("manifest.json", manifest.as_bytes()),
    ]);
    refused(&Fixture::new(), &archive, "more than 10000 images");
}

#[test]
fn names_do_not_fill_the_memory() {
    let long = "n".repeat(800_000);
    let mut archive = Tar::default();
    for _ in 0..50 {
        archive.add(&Member {
            pax: &[("path", long.as_bytes())],
            ..link(b'2', "x", "y")
        });
    }
    refused(
        &Fixture::new(),
        &archive.finish(),
        "names in the archive are too long",
    );
    let long = "n".repeat(10_000);
    let member = Member {
        pax: &[("path", long.as_bytes())],
        ..file("x", b"")
    };
    refused_layer(&[member], "File name too long");
    let member = Member {
        pax: &[("linkpath", long.as_bytes())],
        ..link(b'2', "x", "y")
    };
    refused_layer(&[member], "File name too long");
}

#[test]
fn headers_do_not_fill_the_memory() {
    let mut archive = Tar::default();
    archive.add(&Member {
        kind: b'x',
        ..file("pax", b"")
    });
    // A header of 300 MB announces itself by its size alone.
    let text = format!("{:011o}", 300 << 20);
    archive.0[124..135].copy_from_slice(text.as_bytes());
    archive.0[148..156].fill(b' ');
    let sum: u32 = archive.0[..512].iter().map(|&byte| u32::from(byte)).sum();
    archive.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let archive = docker_archive("test", &[archive.finish()]);
    refused(&Fixture::new(), &archive, "oversized extended header");

    let names: Vec<String> = (0..40_000)
        .map(|n| format!("SCHILY.xattr.user.{n}"))
        .collect();
    let records: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b""[..])).collect();
    let member = Member {
        pax: &records,
        ..file("x", b"")
    };
    refused_layer(&[member], "extended");
    let value = vec![b'v'; 100_000];
    let member = Member {
        pax: &[("SCHILY.xattr.user.large", &value)],
        ..file("x", b"")
    };
    refused_layer(&[member], "set an attribute of");
}

#[test]
fn sizes_that_nothing_has_are_refused() {
    let sparse = |size: &'static [u8]| Member {
        pax: vec![("GNU.sparse.map", &b"0,0"[..]), ("GNU.sparse.size", size)].leak(),
        ..file("x", b"")
    };
    refused_layer(&[sparse(b"9000000000000000000")], "extend");
    refused_layer(&[sparse(b"9223372036854775807")], "sparse map");
    refused_layer(&[sparse(b"18446744073709551615")], "sparse map");
    let huge = Member {
        pax: &[("size", b"4611686018427387904")],
        ..file("x", b"")
    };
    refused_layer(&[huge], "EOF");
    let negative = Member {
        pax: &[("size", b"-1")],
        ..file("x", b"")
    };
    refused_layer(&[negative], "malformed size");
}

#[test]
fn paths_of_blobs_are_looked_up_in_the_archive_only() {
    let layer = Tar::of(&[file("a", b"x")]);
    for (config_path, layer_path) in [
        ("../../../../../../etc/passwd", "0"),
        ("/etc/passwd", "0"),
        ("c", "../../../../../../../bin/busybox"),
        ("c", "blobs/sha256/../../../../../../../etc/passwd"),
    ] {
        let manifest = json!([{"Config": config_path, "Layers": [layer_path]}]).to_string();
        let archive = Tar::of(&[
            file("0", &layer),
            file("c", &config(std::slice::from_ref(&layer))),
            file("manifest.json", manifest.as_bytes()),
        ]);
        refused(&Fixture::new(), &archive, "not found");
    }
}

#[test]
fn marks_of_overlayfs_cannot_be_smuggled_in() {
    let fixture = Fixture::new();
    let mark = [
        ("SCHILY.xattr.trusted.overlay.opaque", &b"y"[..]),
        ("SCHILY.xattr.trusted.overlay.metacopy", b""),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.origin", b"x"),
        ("SCHILY.xattr.trusted.overlay.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.kept", b"1"),
    ];
    let marked = |member: Member<'static>| Member {
        pax: mark.to_vec().leak(),
        ..member
    };
    let layer = Tar::of(&[
        marked(directory("./")),
        marked(directory("d")),
        marked(file("d/f", b"1")),
        marked(link(b'2', "d/l", "f")),
    ]);
    let root = fixture.layer(&layer).unwrap();
    for path in ["", "d", "d/f", "d/l"] {
        let mut names = vec![0; 1024];
        let length = rustix::fs::llistxattr(root.join(path), &mut names[..]).unwrap();
        let names = String::from_utf8_lossy(&names[..length]).into_owned();
        assert!(!names.contains("overlay"), "{path}: {names:?}");
    }
}

#[test]
fn a_layer_with_more_directories_than_memory_is_refused() {
    // Each path brings 2,000 directories with names of 2,000 bytes on average.
    let deep = "a/".repeat(2020);
    let mut layer = Tar::default();
    for number in 0..40 {
        let path = format!("{number}/{deep}x");
        layer.add(&Member {
            pax: &[("path", path.as_bytes())],
            ..file("x", b"")
        });
    }
    let fixture = Fixture::in_memory();
    let archive = docker_archive("test", &[layer.finish()]);
    refused(&fixture, &archive, "too many directories");
}

#[test]
fn a_tree_as_deep_as_links_can_make_it_is_made_and_removed() {
    // Every link leads to where the one before ended, so that short paths nest without end.
    let mut layer = Tar::default();
    layer.add(&directory("l0"));
    for number in 0..8 {
        let mut path = format!("l{number}");
        for _ in 0..200 {
            path += "/level";
            layer.add(&Member {
                pax: &[("path", path.as_bytes())],
                ..directory("x")
            });
        }
        let name = format!("l{}", number + 1);
        layer.add(&Member {
            pax: &[("linkpath", path.as_bytes())],
            ..link(b'2', &name, "y")
        });
    }
    let fixture = Fixture::in_memory();
    let start = Instant::now();
    fixture.layer(&layer.clone().finish()).unwrap();
    fixture.images.remove("test", false, &[]).unwrap();
    assert_eq!(fixture.content(), Vec::<String>::new());
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    // What the layer does not describe is looked up in those below, by a path.
    layer.add(&file("l8/b/c", b""));
    let archive = docker_archive("test", &[layer.finish()]);
    refused(&fixture, &archive, "File name too long");
}

#[test]
fn many_members_of_one_name_leave_one_file() {
    let mut layer = Tar::default();
    layer.add(&file("x", b"data"));
    let end = layer.0.len();
    let member = layer.0[..end].to_vec();
    let layer = [member.repeat(20_000), vec![0; 1024]].concat();
    let fixture = Fixture::in_memory();
    let start = Instant::now();
    let root = fixture.layer(&layer).unwrap();
    assert_eq!(fs::read_dir(root).unwrap().count(), 1);
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

#[test]
fn a_bomb_fills_no_more_than_the_disk_and_leaves_it_empty() {
    let disk = Disk::new(48);
    let fixture = Fixture::in_directory(&disk.0);
    let good = docker_archive("good", &[Tar::of(&[file("a", b"x")])]);
    fixture.load(&good).unwrap();
    let before = fixture.content();
    // 200 MB of zeros in a few kilobytes.
    let layer = Tar::of(&[file("zeros", &vec![0; 200 << 20])]);
    let small = zstd::encode_all(&layer[..], 1).unwrap();
    assert!(small.len() < 100_000);
    let archive = docker_archive_of("bomb", &[small], &config(&[layer]));
    let error = fixture.load(&archive).unwrap_err();
    let text = berth_base::Chain(&error).to_string();
    assert!(text.contains("No space left on device"), "{text}");
    assert_ne!(error.kind(), Kind::Invalid, "it is the disk's fault");
    assert_eq!(fixture.content(), before);
    assert!(fixture.images.resolve("good", None).is_ok());
}

#[test]
fn a_compressed_stream_cannot_ask_for_gigabytes_of_memory() {
    // A frame with a window of 2 GiB (RFC 8878 section 3.1.1.1.2).
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
    let mut layer = frame.to_vec();
    layer.resize(2048, 0);
    let announced = Tar::of(&[]);
    let archive = docker_archive_of("test", &[layer.clone()], &config(&[announced]));
    refused(&Fixture::new(), &archive, "memory");
    refused(&Fixture::new(), &layer, "memory");
}

/// A small file system of its own.
struct Disk(PathBuf);

impl Disk {
    fn new(megabytes: u32) -> Self {
        let root = tempfile::Builder::new()
            .prefix("berth-image-disk-")
            .tempdir()
            .unwrap()
            .keep();
        let flags = rustix::mount::MountFlags::empty();
        let size = std::ffi::CString::new(format!("size={megabytes}m")).unwrap();
        rustix::mount::mount("tmpfs", &root, "tmpfs", flags, size.as_c_str()).unwrap();
        Self(root)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
        fs::remove_dir(&self.0).unwrap();
    }
}
