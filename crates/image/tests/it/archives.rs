//! Archives in and out.

use std::io::Write;

use berth_image::{Import, Kind, progress};
use berth_oci::Digest;

use crate::support::{
    Fixture, Tar, config, directory, docker_archive, docker_archive_of, file, link,
};

fn layers() -> Vec<Vec<u8>> {
    vec![
        Tar::of(&[directory("bin"), file("bin/sh", &[b'x'; 70_000])]),
        Tar::of(&[directory("etc"), file("etc/motd", b"hello")]),
    ]
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn plain_gzip_and_zstd_archives_load_the_same_image() {
    let archive = docker_archive("a:1", &layers());
    let zstd = zstd::encode_all(&archive[..], 1).unwrap();
    let mut ids = Vec::new();
    for archive in [archive.clone(), gzip(&archive), zstd] {
        let fixture = Fixture::new();
        let loaded = fixture.load(&archive).unwrap();
        assert_eq!(loaded[0].names, ["a:1"]);
        ids.push(loaded[0].id.clone());
    }
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[test]
fn compressed_layers_are_kept_as_they_came() {
    let plain = layers();
    let compressed = vec![gzip(&plain[0]), zstd::encode_all(&plain[1][..], 3).unwrap()];
    let fixture = Fixture::new();
    let archive = docker_archive_of("a:1", &compressed, &config(&plain));
    fixture.load(&archive).unwrap();
    let image = fixture.images.resolve("a:1", None).unwrap();
    assert_eq!(
        std::fs::read(image.layers[0].join("etc/motd")).unwrap(),
        b"hello"
    );
    let blobs = fixture.content();
    for layer in &compressed {
        assert!(blobs.contains(&format!("blobs/sha256/{}", Digest::of(layer).hex())));
    }
}

#[test]
fn save_is_deterministic_and_loads_with_the_same_id() {
    let fixture = Fixture::new();
    let id = fixture.load(&docker_archive("a:1", &layers())).unwrap()[0]
        .id
        .clone();
    fixture
        .images
        .tag("a:1", &"b/c:2".parse().unwrap())
        .unwrap();
    let save = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut out = Vec::new();
        fixture.images.save(&names, None, &mut out).map(|()| out)
    };
    let archive = save(&["a:1", "b/c"]).unwrap();
    assert_eq!(archive, save(&["a:1", "b/c"]).unwrap());
    let other = Fixture::new();
    let loaded = other.load(&archive).unwrap();
    assert_eq!(loaded[0].names, ["a:1", "b/c:2"]);
    assert_eq!(loaded[0].id, id);
    let unnamed = Fixture::new();
    let loaded = unnamed.load(&save(&[&id.to_string()]).unwrap()).unwrap();
    assert_eq!((loaded[0].names.len(), &loaded[0].id), (0, &id));
    assert!(unnamed.images.resolve(id.short(), None).is_ok());
    let missing = save(&["a:1", "nope"]).unwrap_err();
    assert_eq!(missing.to_string(), "No such image: nope:latest");
}

#[test]
fn old_archives_link_repeated_layers() {
    let layer = Tar::of(&[file("x", &[1; 3000])]);
    let both = vec![layer.clone(), layer.clone()];
    let manifest = br#"[{"Config":"c.json","RepoTags":["a:1"],
        "Layers":["0/layer.tar","1/layer.tar"]}]"#;
    let archive = Tar::of(&[
        file("./0/layer.tar", &layer),
        link(b'2', "./1/layer.tar", "../0/layer.tar"),
        file("./c.json", &config(&both)),
        file("./manifest.json", manifest),
    ]);
    let fixture = Fixture::new();
    fixture.load(&archive).unwrap();
    assert!(fixture.images.resolve("a:1", None).is_ok());
}

#[test]
fn broken_archives_are_refused_and_leave_nothing() {
    let fixture = Fixture::new();
    let good = docker_archive("a:1", &layers());
    let manifest = |text: &str| Tar::of(&[file("manifest.json", text.as_bytes())]);
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    let wrong_blob = format!("blobs/sha256/{}", "0".repeat(64));
    let cases: &[(Vec<u8>, &str)] = &[
        (
            b"not a tar archive".repeat(100),
            "archive/tar: invalid tar header",
        ),
        (Vec::new(), "unrecognized image format"),
        (Tar::of(&[]), "unrecognized image format"),
        (good[..good.len() / 2].to_vec(), "unexpected EOF"),
        (gzip(&good)[..200].to_vec(), "EOF"),
        (manifest("{"), "manifest.json"),
        (
            manifest(r#"[{"Config":"c","Layers":["l"]}]"#),
            "image config \"c\" not found",
        ),
        (Tar::of(&[file("oci-layout", layout)]), "missing index.json"),
        (
            Tar::of(&[file("oci-layout", br#"{"imageLayoutVersion":"9"}"#)]),
            "unsupported OCI",
        ),
        (
            Tar::of(&[file(&wrong_blob, b"x")]),
            "does not match its digest",
        ),
        (b"BZh91AY&SY".repeat(10), "bzip2"),
    ];
    for (archive, sentence) in cases {
        let error = fixture.load(archive).unwrap_err();
        let text = berth_base::Chain(&error).to_string();
        assert!(text.contains(sentence), "{sentence}: {text}");
        assert_eq!(error.kind(), Kind::Invalid, "{sentence}");
    }
    assert_eq!(fixture.content(), Vec::<String>::new());
    let missing = docker_archive_of("a:1", &layers()[..1], &config(&layers()));
    let error = fixture.load(&missing).unwrap_err().to_string();
    assert!(error.contains("2 diff ids, 1 layers"), "{error}");
    assert_eq!(fixture.content(), Vec::<String>::new());
}

#[test]
fn imports_apply_changes_and_run_through_save() {
    let fixture = Fixture::new();
    let import = Import {
        name: Some("mine".parse().unwrap()),
        message: "made here".to_owned(),
        changes: vec!["CMD [\"/bin/sh\"]".to_owned(), "ENV A=b".to_owned()],
        platform: None,
    };
    let id = fixture
        .images
        .import(&gzip(&layers()[0])[..], &import)
        .unwrap();
    let image = fixture.images.resolve("mine", None).unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.config.config.cmd, Some(vec!["/bin/sh".to_owned()]));
    assert_eq!(
        fixture.images.history("mine", None).unwrap()[0].comment,
        "made here"
    );
    let bad = Import {
        changes: vec!["RUN rm".to_owned()],
        ..import.clone()
    };
    assert!(fixture.images.import(&layers()[0][..], &bad).is_err());
    assert!(
        fixture
            .images
            .import(&b"garbage".repeat(200)[..], &import)
            .is_err()
    );
    fixture.images.remove("mine", false, &[]).unwrap();
    assert_eq!(fixture.content(), Vec::<String>::new());
}

#[test]
fn progress_speaks_dockers_words() {
    let fixture = Fixture::new();
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let report: berth_image::Reporter = std::sync::Arc::new(move |message| {
        sender.lock().unwrap().send(message).unwrap();
    });
    let archive = docker_archive("localhost:5000/a:1", &layers());
    fixture.images.load(&archive[..], None, &report).unwrap();
    let told = receiver.try_recv().unwrap();
    assert_eq!(
        told,
        progress::Progress::stream("Loaded image: localhost:5000/a:1\n")
    );
}
