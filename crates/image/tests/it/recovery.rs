//! What is there after a crash, and that nothing else is.

use berth_oci::{Descriptor, Digest};

use crate::support::{Fixture, Tar, docker_archive, file};

#[test]
fn names_layers_and_snapshots_survive_a_restart() {
    let fixture = Fixture::new();
    let image = fixture.image(&[Tar::of(&[file("x", b"1")])]);
    fixture.images.prepare_snapshot(&image, "c1").unwrap();
    let before = fixture.content();
    let fixture = fixture.reopen();
    assert_eq!(fixture.content(), before);
    let again = fixture.images.resolve("test", None).unwrap();
    assert_eq!((again.id, again.layers), (image.id, image.layers));
    assert!(fixture.images.snapshot(&image_of(&fixture), "c1").is_ok());
}

fn image_of(fixture: &Fixture) -> berth_image::Image {
    fixture.images.resolve("test", None).unwrap()
}

#[test]
fn leftovers_of_a_killed_process_go_at_open() {
    let fixture = Fixture::new();
    fixture.image(&[Tar::of(&[file("x", b"1")])]);
    let before = fixture.content();
    let root = fixture.root.path();
    // A transfer, a layer and a snapshot halfway; a blob and a layer that no name was given.
    std::fs::write(root.join("ingest/blob-7"), "half").unwrap();
    std::fs::create_dir_all(root.join("ingest/layer-3/fs/etc")).unwrap();
    std::fs::create_dir_all(root.join("snapshots/c9/upper")).unwrap();
    std::fs::write(root.join("blobs/sha256").join(Digest::of(b"y").hex()), "y").unwrap();
    std::fs::create_dir_all(root.join("layers/0123/fs")).unwrap();
    std::fs::create_dir_all(root.join("trash/old/deep")).unwrap();
    let fixture = fixture.reopen();
    assert_eq!(fixture.content(), before);
}

#[test]
fn a_damaged_image_loses_nothing_and_a_load_mends_it() {
    let mut fixture = Fixture::new();
    let archive = docker_archive("test:latest", &[Tar::of(&[file("x", b"1")])]);
    fixture.load(&archive).unwrap();
    let image = image_of(&fixture);
    fixture.images.prepare_snapshot(&image, "c1").unwrap();
    let before = fixture.content();
    let blobs = fixture.root.path().join("blobs/sha256");
    for blob in [&image.id, &image.config_digest] {
        let path = blobs.join(blob.hex());
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for damaged in [Some(&flipped[..]), Some(&whole[1..]), Some(b""), None] {
            match damaged {
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            fixture = fixture.reopen();
            assert!(fixture.images.resolve("test", None).is_err());
            fixture.load(&archive).unwrap();
            assert_eq!(fixture.content(), before);
            assert!(image_of(&fixture).layers[0].join("x").exists());
        }
        std::fs::write(&path, &flipped).unwrap();
        fixture = fixture.reopen();
    }
    fixture.images.remove_snapshot("c1").unwrap();
    fixture.images.remove("test", false, &[]).unwrap();
    assert_eq!(fixture.content(), Vec::<String>::new());
}

#[test]
fn a_dropped_lease_leaves_nothing() {
    let fixture = Fixture::new();
    let lease = fixture.images.lease();
    lease.put(b"blob").unwrap();
    let mut open = lease.begin(&Digest::of(b"other"), 5).unwrap();
    open.write(b"oth").unwrap();
    assert!(open.write(b"erwise").is_err(), "more than announced");
    drop(open);
    let layer = Tar::of(&[file("x", b"1")]);
    lease.unpack(&layer[..], None).unwrap();
    drop(lease);
    assert_eq!(fixture.content(), Vec::<String>::new());
}

#[test]
fn a_lease_keeps_what_a_removal_would_take() {
    let fixture = Fixture::new();
    let layers = [Tar::of(&[file("x", b"1")])];
    let image = fixture.image(&layers);
    let lease = fixture.images.lease();
    assert!(lease.is_unpacked(&image.config.rootfs.diff_ids));
    for blob in [&image.id, &image.config_digest, &Digest::of(&layers[0])] {
        assert!(lease.contains(blob));
    }
    fixture.images.remove("test", false, &[]).unwrap();
    let names = ["back:1".parse().unwrap()];
    lease
        .record(&names, &image.target, &berth_image::Wanted::HostIfAny)
        .unwrap();
    drop(lease);
    assert_eq!(
        fixture.images.resolve("back:1", None).unwrap().layers,
        image.layers
    );
    fixture.images.remove("back:1", false, &[]).unwrap();
    assert_eq!(fixture.content(), Vec::<String>::new());
}

#[test]
fn a_tail_sees_everything_or_an_error() {
    use std::io::Read;
    let fixture = Fixture::new();
    let lease = fixture.images.lease();
    let mut ingest = lease.begin_unknown().unwrap();
    let mut tail = ingest.tail();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        tail.read_to_end(&mut all).map(|_| all)
    });
    for part in 0..100u8 {
        ingest.write(&[part; 1000]).unwrap();
    }
    let broken = lease.begin_unknown().unwrap();
    let mut tail = broken.tail();
    ingest.commit().unwrap();
    assert_eq!(reader.join().unwrap().unwrap().len(), 100_000);
    drop(broken);
    assert!(tail.read(&mut [0; 10]).is_err());
}

#[test]
fn a_wrong_blob_is_not_recorded() {
    let fixture = Fixture::new();
    let lease = fixture.images.lease();
    let missing = Descriptor::of(berth_oci::media_type::OCI_MANIFEST, b"nothing");
    let names = ["x".parse().unwrap()];
    let wanted = berth_image::Wanted::HostIfAny;
    assert!(lease.record(&names, &missing, &wanted).is_err());
    let mut ingest = lease.begin(&Digest::of(b"right"), 5).unwrap();
    ingest.write(b"wrong").unwrap();
    let error = ingest.commit().unwrap_err().to_string();
    assert!(error.contains("does not match its digest"), "{error}");
    assert!(fixture.load(&docker_archive("ok", &[])).is_ok());
}

#[test]
fn recording_while_others_are_removed_loses_nothing() {
    let fixture = Fixture::new();
    let archive = |n: u8| {
        let layer = Tar::of(&[file("x", &[n])]);
        docker_archive(&format!("image-{n}:1"), &[layer])
    };
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (fixture, archive) = (&fixture, archive(n));
            scope.spawn(move || {
                for _ in 0..8 {
                    fixture.load(&archive).unwrap();
                    let name = format!("image-{n}:1");
                    let image = fixture.images.resolve(&name, None).unwrap();
                    assert!(image.layers[0].join("x").exists());
                    fixture.images.remove(&name, false, &[]).unwrap();
                }
            });
        }
    });
    assert_eq!(fixture.content(), Vec::<String>::new());
}

#[test]
fn a_platform_that_arrives_later_is_seen() {
    let fixture = Fixture::new();
    let lease = fixture.images.lease();
    let layer = Tar::of(&[file("x", b"1")]);
    let put = |media_type: &str, bytes: &[u8]| {
        lease.put(bytes).unwrap();
        Descriptor::of(media_type, bytes)
    };
    let json = |value: serde_json::Value| value.to_string().into_bytes();
    let manifest = |config: &Descriptor, layer: &Descriptor| {
        json(serde_json::json!({"schemaVersion": 2,
            "mediaType": berth_oci::media_type::OCI_MANIFEST,
            "config": config, "layers": [layer]}))
    };
    let config = |architecture: &str| {
        json(
            serde_json::json!({"os": "linux", "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]}}),
        )
    };
    use berth_oci::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
    let blob = put(OCI_LAYER, &layer);
    let host = berth_oci::Platform::host();
    let ours = put(OCI_CONFIG, &config(&host.architecture));
    let mut ours = put(OCI_MANIFEST, &manifest(&ours, &blob));
    ours.platform = Some(host);
    let late_config = config("s390x");
    let late = manifest(&Descriptor::of(OCI_CONFIG, &late_config), &blob);
    let mut late_descriptor = Descriptor::of(OCI_MANIFEST, &late);
    late_descriptor.platform = "linux/s390x".parse().ok();
    let index = json(
        serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [ours, late_descriptor]}),
    );
    let index = put(OCI_INDEX, &index);
    let names = ["multi".parse::<berth_oci::Reference>().unwrap().or_latest()];
    let record = |wanted| lease.record(&names, &index, &wanted);
    record(berth_image::Wanted::HostIfAny).unwrap();
    let s390x = "linux/s390x".parse::<berth_oci::Platform>().unwrap();
    assert!(fixture.images.resolve("multi", Some(&s390x)).is_err());
    put(OCI_CONFIG, &late_config);
    put(OCI_MANIFEST, &late);
    record(berth_image::Wanted::Platform(s390x.clone())).unwrap();
    let image = fixture.images.resolve("multi", Some(&s390x)).unwrap();
    assert_eq!(
        (image.id, image.config.platform.architecture.as_str()),
        (index.digest.clone(), "s390x")
    );
    let mut archive = Vec::new();
    fixture
        .images
        .save(&["multi".to_owned()], None, &mut archive)
        .unwrap();
    let other = Fixture::new();
    assert_eq!(other.load(&archive).unwrap()[0].id, index.digest);
    assert!(
        other
            .images
            .inspect("multi", Some(&s390x), true, &[])
            .is_ok()
    );
}
