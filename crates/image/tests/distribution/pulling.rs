//! The main road: tags, digests, platforms, what is here already, and what is said meanwhile.

use berth_http::resolve::Files;
use berth_image::distribution::{Credentials, Request};

use crate::Host;
use crate::built::{Blob, image, image_for, index, noise};
use crate::fake::Fake;

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_says_what_docker_says() {
    let registry = Fake::start().await;
    let built = image(&[("a", "first"), ("b", "second")]);
    registry.push("some/app", "v1", &built);
    let host = Host::new();
    let name = registry.name("some/app:v1");
    let pulled = host.pull(&name).await.unwrap();
    assert!(pulled.is_newer);
    assert_eq!(pulled.digest, built.manifest.descriptor.digest);
    assert_eq!(host.file(&name, "a").as_deref(), Some("first"));
    assert_eq!(host.file(&name, "b").as_deref(), Some("second"));
    let said = host.said();
    let (first, second) = (built.layers[0].short(), built.layers[1].short());
    assert_eq!(
        said[..3],
        [
            "v1: Pulling from some/app".to_owned(),
            format!("{first}: Pulling fs layer"),
            format!("{second}: Pulling fs layer"),
        ]
    );
    let mut of_first: Vec<&str> = said
        .iter()
        .filter_map(|line| line.strip_prefix(&format!("{first}: ")))
        .collect();
    of_first.retain(|status| *status != "Extracting");
    assert_eq!(
        of_first,
        [
            "Pulling fs layer",
            "Downloading",
            "Verifying Checksum",
            "Download complete",
            "Pull complete"
        ]
    );
    assert_eq!(
        said[said.len() - 2..],
        [
            format!("Digest: {}", pulled.digest),
            format!("Status: Downloaded newer image for {name}"),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_mends_what_the_disk_damaged() {
    let registry = Fake::start().await;
    let built = image(&[("a", "first"), ("b", &noise(5_000_000))]);
    registry.push("app", "latest", &built);
    let mut host = Host::new();
    let name = registry.name("app");
    host.pull(&name).await.unwrap();
    let layers = built.layers.iter();
    let small = layers.chain([&built.config, &built.manifest]);
    // A large blob is not read to see whether it is whole, but its size is looked at.
    let cases = small
        .map(|blob| (blob, false))
        .chain([(&built.layers[1], true)]);
    for (blob, truncated) in cases {
        let digest = &blob.descriptor.digest;
        let blobs = host.directory.path().join("images/blobs/sha256");
        let path = blobs.join(digest.hex());
        let mut bytes = blob.bytes.clone();
        match truncated {
            true => bytes.truncate(bytes.len() / 2),
            false if bytes.len() > 4 << 20 => continue,
            false => bytes[blob.bytes.len() / 2] ^= 1,
        }
        std::fs::write(&path, &bytes).unwrap();
        host = host.reopen();
        host.pull(&name).await.unwrap();
        assert!(std::fs::read(&path).unwrap() == blob.bytes, "{digest}");
        assert_eq!(host.file(&name, "a").as_deref(), Some("first"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pull_downloads_nothing() {
    let registry = Fake::start().await;
    let built = image(&[("a", "first")]);
    registry.push("app", "latest", &built);
    let host = Host::new();
    let name = registry.name("app");
    host.pull(&name).await.unwrap();
    host.said();
    let before = registry.seen().len();
    let again = host.pull(&name).await.unwrap();
    assert!(!again.is_newer);
    assert_eq!(
        host.said(),
        [
            "latest: Pulling from app".to_owned(),
            format!("Digest: {}", again.digest),
            format!("Status: Image is up to date for {name}:latest"),
        ]
    );
    let paths: Vec<String> = registry.seen()[before..]
        .iter()
        .map(|seen| format!("{} {}", seen.method, seen.path))
        .collect();
    assert_eq!(paths, ["GET /v2/", "HEAD /v2/app/manifests/latest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_brings_only_the_new_layers() {
    let registry = Fake::start().await;
    let old = image(&[("base", "same"), ("top", "old")]);
    let new = image(&[("base", "same"), ("top", "new")]);
    registry.push("app", "latest", &old);
    let host = Host::new();
    let name = registry.name("app");
    host.pull(&name).await.unwrap();
    registry.push("app", "latest", &new);
    host.said();
    assert!(host.pull(&name).await.unwrap().is_newer);
    assert_eq!(
        host.said()[1..3],
        [
            format!("{}: Already exists", new.layers[0].short()),
            format!("{}: Pulling fs layer", new.layers[1].short()),
        ]
    );
    assert_eq!(host.file(&name, "top").as_deref(), Some("new"));
    assert_eq!(registry.asked(&new.layers[0]).len(), 1);
    assert_eq!(registry.asked(&new.layers[1]).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_pulled_without_asking_for_a_tag() {
    let registry = Fake::start().await;
    let built = image(&[("a", "x")]);
    registry.push("app", "latest", &built);
    let digest = &built.manifest.descriptor.digest;
    let host = Host::new();
    let name = registry.name(&format!("app@{digest}"));
    host.pull(&name).await.unwrap();
    assert_eq!(host.file(&name, "a").as_deref(), Some("x"));
    assert!(host.said()[0].starts_with(&format!("{digest}: Pulling from app")));
    assert!(
        registry
            .seen()
            .iter()
            .all(|seen| !seen.path.contains("latest"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_leads_to_the_platforms_image_and_stays_whole() {
    let registry = Fake::start().await;
    let amd64 = image_for(&"linux/amd64".parse().unwrap(), &[("arch", "amd64")]);
    let arm64 = image_for(&"linux/arm64".parse().unwrap(), &[("arch", "arm64")]);
    let both = index(&[("linux/amd64", &amd64), ("linux/arm64", &arm64)]);
    registry.push_index("app", "latest", &both, &[&amd64, &arm64]);
    let name = registry.name("app");
    let host = Host::new();
    let pulled = host.pull(&name).await.unwrap();
    assert_eq!(pulled.digest, both.descriptor.digest);
    let native = berth_oci::Platform::host().architecture;
    assert_eq!(host.file(&name, "arch"), Some(native));
    let request = |platform: &str| Request {
        reference: name.parse().unwrap(),
        platform: Some(platform.parse().unwrap()),
        credentials: Credentials::Anonymous,
    };
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        host.pull_request(&request(&platform)).await.unwrap();
        let platform = platform.parse().unwrap();
        let image = host.images.resolve(&name, Some(&platform)).unwrap();
        let text = std::fs::read_to_string(image.layers[0].join("arch")).unwrap();
        assert_eq!(text, architecture);
    }
    let error = host
        .pull_request(&request("linux/s390x"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no matching manifest for linux/s390x in the manifest list entries"
    );
    assert_eq!(error.kind(), berth_image::Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_only_manifest_of_a_foreign_platform_is_taken_unless_another_is_asked_for() {
    let registry = Fake::start().await;
    let foreign = image_for(&"linux/s390x".parse().unwrap(), &[("arch", "s390x")]);
    registry.push("app", "latest", &foreign);
    let name = registry.name("app");
    let host = Host::new();
    host.pull(&name).await.unwrap();
    let request = Request {
        reference: name.parse().unwrap(),
        platform: Some("linux/amd64".parse().unwrap()),
        credentials: Credentials::Anonymous,
    };
    let error = Host::new().pull_request(&request).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "image with reference {name}:latest was found but its platform (linux/s390x) does not match \
             the specified platform (linux/amd64)"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_one_image_at_once_share_the_work() {
    let registry = Fake::start().await;
    let text = noise(300_000);
    let built = image(&[("a", &text), ("b", "x"), ("c", "y"), ("d", "z"), ("e", "w")]);
    registry.push("app", "latest", &built);
    let host = Host::new();
    let name = registry.name("app");
    let (one, two) = tokio::join!(host.pull(&name), host.pull(&name));
    assert_ne!(one.unwrap().is_newer, two.unwrap().is_newer);
    for layer in &built.layers {
        assert_eq!(registry.asked(layer).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_occurs_twice_is_fetched_once() {
    let registry = Fake::start().await;
    let built = image(&[("a", "same"), ("b", "other"), ("a", "same")]);
    registry.push("app", "latest", &built);
    let host = Host::new();
    host.pull(&registry.name("app")).await.unwrap();
    assert_eq!(registry.asked(&built.layers[0]).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_tried_in_order_and_only_for_docker_hub() {
    let broken = Fake::with(|_| {
        let status = http::StatusCode::INTERNAL_SERVER_ERROR;
        Some(crate::fake::json(status, "{}"))
    })
    .await;
    let good = Fake::start().await;
    let built = image(&[("a", "mirrored")]);
    good.push("library/app", "latest", &built);
    let mirrors = [&broken, &good].map(|mirror| format!("http://{}", mirror.address));
    let host = Host::with(|config| {
        config.registries.mirrors = mirrors.iter().map(|uri| uri.parse().unwrap()).collect();
    });
    host.pull("app").await.unwrap();
    assert_eq!(host.file("app", "a").as_deref(), Some("mirrored"));
    assert!(!broken.seen().is_empty());
    let elsewhere = Fake::start().await;
    let before = good.seen().len();
    host.pull(&elsewhere.name("library/app")).await.unwrap_err();
    assert_eq!(good.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_one_after_the_other_share_a_connection() {
    let registry = Fake::start().await;
    registry.push("app", "latest", &image(&[("a", "x")]));
    Host::new().pull(&registry.name("app")).await.unwrap();
    let seen = registry.seen();
    assert_eq!(
        seen.len(),
        5,
        "ping, tag, manifest, config, layer: {seen:?}"
    );
    assert!(seen.iter().all(|request| request.peer == seen[0].peer));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tags_are_pulled_page_by_page() {
    let registry = Fake::with(|seen| {
        let list = seen.path.strip_prefix("/v2/app/tags/list")?;
        let mut response = crate::fake::json(
            http::StatusCode::OK,
            match list {
                "" => r#"{"name":"app","tags":["v1","v2"]}"#,
                "?last=v2" => r#"{"name":"app","tags":["v3"]}"#,
                other => panic!("{other}"),
            },
        );
        if list.is_empty() {
            let link = r#"</v2/app/tags/list?last=v2>; rel="next""#;
            response.headers_mut().insert("link", link.parse().unwrap());
        }
        Some(response)
    })
    .await;
    let name = registry.name("app");
    for tag in ["v1", "v2", "v3"] {
        registry.push("app", tag, &image(&[("tag", tag)]));
    }
    let host = Host::new();
    let request = Request {
        reference: name.parse().unwrap(),
        platform: None,
        credentials: Credentials::Anonymous,
    };
    host.distribution
        .pull_all(&request, &host.reporter())
        .await
        .unwrap();
    for tag in ["v1", "v2", "v3"] {
        assert_eq!(
            host.file(&format!("{name}:{tag}"), "tag").as_deref(),
            Some(tag)
        );
    }
    let said = host.said();
    let newer = format!("Status: Downloaded newer image for {name}");
    assert_eq!(said.last(), Some(&newer));
    assert_eq!(
        said.iter()
            .filter(|line| line.starts_with("Status"))
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_looked_up_in_the_hosts_file() {
    let registry = Fake::start().await;
    registry.push("app", "latest", &image(&[("a", "x")]));
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 registry.test\n").unwrap();
    let host = Host::with(|config| {
        config.names = Files {
            hosts,
            resolv_conf: "/nonexistent".into(),
        };
    });
    let port = registry.address.port();
    host.pull(&format!("registry.test:{port}/app"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_that_is_no_image_is_refused() {
    let registry = Fake::start().await;
    let mut built = image(&[]);
    let config = Blob::new("application/vnd.test.thing+json", b"{}".to_vec());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": berth_oci::media_type::OCI_MANIFEST,
        "config": config.descriptor,
        "layers": [],
    });
    built.config = config;
    built.manifest = Blob::new(
        berth_oci::media_type::OCI_MANIFEST,
        manifest.to_string().into_bytes(),
    );
    registry.push("app", "latest", &built);
    let error = Host::new().refused(&registry.name("app")).await;
    assert_eq!(
        error,
        "unsupported media type application/vnd.test.thing+json"
    );
}
