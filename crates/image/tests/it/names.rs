//! Names, look-ups, lists, removal.

use berth_docker::filters::Filters;
use berth_image::{Kind, Usage, list};

use crate::support::{Fixture, Tar, docker_archive, file};

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    let layer = |text: &[u8]| vec![Tar::of(&[file("x", text)])];
    fixture.load(&docker_archive("a:1", &layer(b"1"))).unwrap();
    fixture
        .load(&docker_archive("host:5000/b", &layer(b"2")))
        .unwrap();
    fixture
}

fn rows(fixture: &Fixture, filters: &str) -> Vec<String> {
    let options = list::Options {
        filters: Filters::parse(filters).unwrap(),
        ..list::Options::default()
    };
    let mut rows: Vec<String> = fixture
        .images
        .list(&options, &[])
        .unwrap()
        .into_iter()
        .map(|row| row.repo_tags.join(","))
        .collect();
    rows.sort();
    rows
}

#[test]
fn images_are_found_by_name_id_prefix_and_config() {
    let fixture = fixture();
    let image = fixture.images.resolve("a:1", None).unwrap();
    let hex = image.id.hex();
    let digested = format!("a@{}", image.id);
    for text in [
        "docker.io/library/a:1",
        hex,
        &hex[..12],
        &format!("sha256:{}", &hex[..8]),
        &digested,
        &image.id.to_string(),
        &image.config_digest.to_string(),
        image.config_digest.short(),
    ] {
        assert_eq!(
            fixture.images.resolve(text, None).unwrap().id,
            image.id,
            "{text}"
        );
    }
    let missing = |text: &str| {
        let error = fixture.images.resolve(text, None).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        error.to_string()
    };
    assert_eq!(missing("a"), "No such image: a:latest");
    assert_eq!(missing("nope:x"), "No such image: nope:x");
    assert_eq!(
        missing(&format!("b@{}", image.id)),
        format!("No such image: b@{}", image.id)
    );
    let invalid = fixture.images.resolve("A b", None).unwrap_err();
    assert_eq!(
        (invalid.kind(), invalid.to_string().as_str()),
        (
            Kind::Invalid,
            "invalid reference format: repository name (library/A b) must be lowercase"
        )
    );
    let arm = "linux/s390x".parse().unwrap();
    let foreign = fixture
        .images
        .resolve("a:1", Some(&arm))
        .unwrap_err()
        .to_string();
    assert!(foreign.contains("does not provide the specified platform (linux/s390x)"));
}

#[test]
fn lists_filter_as_docker_does() {
    let fixture = fixture();
    assert_eq!(rows(&fixture, ""), ["a:1", "host:5000/b:latest"]);
    assert_eq!(rows(&fixture, r#"{"reference":["a"]}"#), ["a:1"]);
    assert_eq!(
        rows(&fixture, r#"{"reference":["*/b:l*"]}"#),
        ["host:5000/b:latest"]
    );
    assert_eq!(
        rows(&fixture, r#"{"dangling":["true"]}"#),
        Vec::<String>::new()
    );
    assert_eq!(rows(&fixture, r#"{"label":["tier=front"]}"#).len(), 2);
    assert_eq!(rows(&fixture, r#"{"label":["tier=back"]}"#).len(), 0);
    assert_eq!(rows(&fixture, r#"{"until":["1h"]}"#).len(), 2);
    let options = list::Options {
        filters: Filters::parse(r#"{"nope":["x"]}"#).unwrap(),
        ..list::Options::default()
    };
    let error = fixture.images.list(&options, &[]).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (Kind::Invalid, "invalid filter 'nope'")
    );
}

#[test]
fn inspect_and_list_tell_what_docker_tells() {
    let fixture = fixture();
    let inspect = fixture.images.inspect("a:1", None, true, &[]).unwrap();
    assert_eq!(inspect.repo_tags, ["a:1"]);
    assert_eq!(inspect.repo_digests, [format!("a@{}", inspect.id)]);
    assert_eq!(inspect.created.as_deref(), Some("2024-01-02T03:04:05Z"));
    assert_eq!(inspect.root_fs.layers.len(), 1);
    assert_eq!(inspect.manifests[0].kind, "image");
    assert!(inspect.manifests[0].available);
    let rows = fixture.images.list(&list::Options::default(), &[]).unwrap();
    let row = rows.iter().find(|row| row.id == inspect.id).unwrap();
    assert_eq!((row.created, row.shared_size), (1_704_164_645, -1));
    assert_eq!(row.labels.as_ref().unwrap()["tier"], "front");
    let history = fixture.images.history("a:1", None).unwrap();
    assert_eq!(
        (history[0].id.as_str(), history[0].created_by.as_str()),
        (&*inspect.id, "a step")
    );
    assert_eq!(history[0].tags, Some(vec!["a:1".to_owned()]));
}

#[test]
fn a_replaced_name_leaves_a_dangling_image() {
    let fixture = fixture();
    let old = fixture.images.resolve("a:1", None).unwrap().id;
    fixture
        .images
        .tag("host:5000/b", &"a:1".parse().unwrap())
        .unwrap();
    assert_eq!(rows(&fixture, r#"{"dangling":["true"]}"#), [""]);
    assert!(fixture.images.resolve(old.hex(), None).is_ok());
    fixture
        .images
        .tag(old.hex(), &"again:1".parse().unwrap())
        .unwrap();
    assert_eq!(
        rows(&fixture, r#"{"dangling":["true"]}"#),
        Vec::<String>::new()
    );
    fixture
        .images
        .tag("host:5000/b", &"again:1".parse().unwrap())
        .unwrap();
    let (items, freed) = fixture.images.prune(false, &[], |_| true).unwrap();
    assert_eq!(items[0].deleted, old.to_string());
    assert!(freed > 0);
}

#[test]
fn removal_frees_everything_but_what_others_use() {
    let fixture = fixture();
    let image = fixture.images.resolve("a:1", None).unwrap();
    let other = fixture.images.resolve("host:5000/b", None).unwrap();
    fixture.images.prepare_snapshot(&image, "c1").unwrap();
    let usage = [Usage {
        container_id: "c1".repeat(32),
        image: image.id.clone(),
        running: false,
    }];
    assert_eq!(
        fixture
            .images
            .remove("a:1", false, &usage)
            .unwrap_err()
            .kind(),
        Kind::Conflict
    );
    let removed = fixture.images.remove("a:1", true, &usage).unwrap();
    assert_eq!(removed.items[0].untagged, "a:1");
    assert!(image.layers[0].exists(), "a container still stands on it");
    let kept = fixture.images.snapshot_image("c1").unwrap();
    assert_eq!(kept.layers, image.layers);
    fixture.images.remove_snapshot("c1").unwrap();
    fixture.images.remove(image.id.hex(), false, &[]).unwrap();
    fixture.images.settle();
    assert!(!image.layers[0].exists() && other.layers[0].exists());
    fixture.images.remove("host:5000/b", false, &[]).unwrap();
    assert_eq!(fixture.content(), Vec::<String>::new());
}
