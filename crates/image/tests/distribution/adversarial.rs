//! Registries that lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_oci::media_type::OCI_LAYER_GZIP;
use berth_oci::{Digest, Platform};
use bytes::Bytes;
use http::{Response, StatusCode};

use crate::Host;
use crate::built::{Blob, assemble, gzip, image, noise, tar};
use crate::fake::{Fake, part};

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_with_another_digest_is_refused() {
    let registry = Fake::start().await;
    let mut built = image(&[("a", "good"), ("b", "also good")]);
    let digest = built.layers[0].descriptor.digest.clone();
    // The same length, and a valid archive.
    let mut evil = gzip(&tar("a", "evil"));
    evil.resize(built.layers[0].bytes.len(), 0);
    built.layers[0].bytes = evil;
    registry.push("app", "latest", &built);
    assert_eq!(
        Host::new().refused(&registry.name("app")).await,
        format!("filesystem layer verification failed for digest {digest}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_of_another_length_is_refused() {
    let built = image(&[("a", "good")]);
    let layer = built.layers[0].clone();
    let registry = {
        let layer = layer.clone();
        Fake::with(move |seen| {
            let mut bytes = layer.bytes.clone();
            bytes.extend_from_slice(b"more");
            seen.is_blob(&layer).then(|| part(bytes.into(), ""))
        })
        .await
    };
    registry.push("app", "latest", &built);
    let (digest, size) = (&layer.descriptor.digest, layer.descriptor.size);
    assert_eq!(
        Host::new().refused(&registry.name("app")).await,
        format!(
            "filesystem layer verification failed for digest {digest}: the registry sends {} bytes \
             where the manifest says {size}",
            size + 4
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_never_ends_is_cut_off() {
    let built = image(&[("a", "good")]);
    let layer = built.layers[0].clone();
    let registry = {
        let layer = layer.clone();
        Fake::with(move |seen| {
            let flood = || Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 4096]));
            let flood = futures_util::stream::repeat_with(flood);
            seen.is_blob(&layer)
                .then(|| Response::new(berth_http::body::stream(flood)))
        })
        .await
    };
    registry.push("app", "latest", &built);
    let error = Host::new().refused(&registry.name("app")).await;
    assert!(error.contains("verification failed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_with_another_diff_id_is_refused() {
    let registry = Fake::start().await;
    let claimed = Digest::of(b"something else");
    let layer = Blob::new(OCI_LAYER_GZIP, gzip(&tar("a", "x")));
    let built = assemble(&Platform::host(), &[claimed], vec![layer]);
    registry.push("app", "latest", &built);
    let error = Host::new().refused(&registry.name("app")).await;
    assert!(error.contains("does not match"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_no_archive_is_refused() {
    let registry = Fake::start().await;
    let garbage = noise(50_000).into_bytes();
    let diff_id = Digest::of(&garbage);
    let layer = Blob::new(OCI_LAYER_GZIP, garbage);
    let built = assemble(&Platform::host(), &[diff_id], vec![layer]);
    registry.push("app", "latest", &built);
    let error = Host::new().refused(&registry.name("app")).await;
    assert!(error.starts_with("failed to unpack layer"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_archive_is_refused() {
    let registry = Fake::start().await;
    let whole = tar("a", &noise(50_000));
    let mut packed = gzip(&whole);
    packed.truncate(packed.len() / 2);
    let layer = Blob::new(OCI_LAYER_GZIP, packed);
    let built = assemble(&Platform::host(), &[Digest::of(&whole)], vec![layer]);
    registry.push("app", "latest", &built);
    let error = Host::new().refused(&registry.name("app")).await;
    assert!(error.starts_with("failed to unpack layer"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_with_another_digest_is_refused() {
    let registry = Fake::start().await;
    let built = image(&[("a", "x")]);
    registry.push("app", "latest", &built);
    let other = image(&[("a", "y")]);
    let digest = other.manifest.descriptor.digest.clone();
    registry.put(&format!("app/manifests/{digest}"), &built.manifest);
    assert_eq!(
        Host::new()
            .refused(&registry.name(&format!("app@{digest}")))
            .await,
        format!("manifest verification failed for digest {digest}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_100_megabytes_is_not_read() {
    let sent = Arc::new(AtomicU64::new(0));
    let registry = {
        let sent = Arc::clone(&sent);
        Fake::with(move |seen| {
            if !seen.path.contains("/manifests/") {
                return None;
            }
            let sent = Arc::clone(&sent);
            let pieces = (0..100).map(move |_| {
                sent.fetch_add(1 << 20, Ordering::SeqCst);
                Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1 << 20]))
            });
            let body = berth_http::body::stream(futures_util::stream::iter(pieces));
            Some(Response::new(body))
        })
        .await
    };
    assert_eq!(
        Host::new().refused(&registry.name("app")).await,
        "manifest is larger than 4194304 bytes"
    );
    assert!(sent.load(Ordering::SeqCst) < 20 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_a_file_is_not_followed() {
    let built = image(&[("a", "x")]);
    let layer = built.layers[0].clone();
    let registry = Fake::with(move |seen| {
        seen.is_blob(&layer).then(|| {
            Response::builder()
                .status(StatusCode::TEMPORARY_REDIRECT)
                .header("location", "file:///etc/passwd")
                .body(berth_http::body::empty())
                .unwrap()
        })
    })
    .await;
    registry.push("app", "latest", &built);
    let error = Host::new().refused(&registry.name("app")).await;
    assert!(error.contains("unsupported protocol scheme"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_no_manifests_are_refused() {
    for (text, media_type) in [
        ("<html>", "text/html"),
        ("{}", "application/json"),
        (
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            "application/vnd.docker.distribution.manifest.v1+json",
        ),
        (
            r#"{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}"#,
            "",
        ),
    ] {
        let registry = Fake::start().await;
        let document = Blob::new(media_type, text.as_bytes().to_vec());
        let digest = document.descriptor.digest.clone();
        registry.put("app/manifests/latest", &document);
        registry.put(&format!("app/manifests/{digest}"), &document);
        let error = Host::new().refused(&registry.name("app")).await;
        assert!(error.starts_with("invalid manifest: "), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_with_too_few_diff_ids_is_refused() {
    let registry = Fake::start().await;
    let layer = Blob::new(OCI_LAYER_GZIP, gzip(&tar("a", "x")));
    let built = assemble(&Platform::host(), &[], vec![layer]);
    registry.push("app", "latest", &built);
    assert_eq!(
        Host::new().refused(&registry.name("app")).await,
        "invalid image configuration: it has 0 diff ids for the 1 layers of the manifest"
    );
}
