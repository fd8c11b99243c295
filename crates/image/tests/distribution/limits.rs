//! Registries that never end, answer slowly, or say what would exhaust or mislead the client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_image::distribution::{Credentials, Request};
use berth_oci::media_type::{OCI_INDEX, OCI_LAYER_GZIP};
use berth_oci::{Digest, Platform};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Response, StatusCode};

use crate::Host;
use crate::built::{Blob, assemble, gzip, image, tar};
use crate::fake::{Fake, json, unauthorized};

/// A body that begins and then stands still.
fn stalling(text: &'static str) -> Response<berth_http::Body> {
    let first = Ok::<_, std::io::Error>(Bytes::from_static(text.as_bytes()));
    let pieces = futures_util::stream::iter([first]).chain(futures_util::stream::pending());
    Response::new(berth_http::body::stream(pieces))
}

/// A body that comes byte by byte, and never to its end.
fn trickling() -> Response<berth_http::Body> {
    let pieces = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
    });
    Response::new(berth_http::body::stream(pieces))
}

fn impatient() -> Host {
    Host::with(|config| config.document_timeout = Duration::from_millis(300))
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_stand_still_or_trickle_are_given_up() {
    for slow in [|| stalling("{"), trickling] {
        let registry = Fake::with(move |seen| seen.path.contains("/manifests/").then(slow)).await;
        let error = impatient().refused(&registry.name("app")).await;
        assert!(error.contains("it took longer than 0.3 s"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_trickle_are_given_up() {
    let tokens = Fake::with(|_| Some(trickling())).await;
    let challenge = format!(r#"Bearer realm="http://{}/token""#, tokens.address);
    let registry = Fake::with(move |_| Some(unauthorized(&challenge))).await;
    let error = impatient().refused(&registry.name("app")).await;
    assert!(error.contains("took longer than 0.3 s"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_all_eternity_is_taken_for_a_day() {
    let answer = format!(r#"{{"token":"t","expires_in":{}}}"#, u64::MAX);
    let tokens = Fake::with(move |_| Some(json(StatusCode::OK, &answer))).await;
    let challenge = format!(r#"Bearer realm="http://{}/token""#, tokens.address);
    let registry = Fake::with(move |seen| {
        (seen.header("authorization") != "Bearer t").then(|| unauthorized(&challenge))
    })
    .await;
    registry.push("app", "latest", &image(&[("a", "x")]));
    Host::new().pull(&registry.name("app")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_go_to_no_realm_but_http() {
    let credentials = Credentials::Password {
        user: "ada".to_owned(),
        password: "secret".to_owned(),
    };
    for realm in ["file:///etc/passwd", "gopher://127.0.0.1/", "//", "\\u0000"] {
        let challenge = format!(r#"Bearer realm="{realm}""#);
        let registry = Fake::with(move |_| Some(unauthorized(&challenge))).await;
        let host = Host::new();
        let pulled = host
            .pull_as(&registry.name("app"), credentials.clone())
            .await;
        assert!(pulled.is_err(), "{realm}");
        host.is_clean().await;
        let given = registry
            .seen()
            .iter()
            .any(|seen| !seen.header("authorization").is_empty());
        assert!(!given, "{realm}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_shown_to_where_the_token_server_redirects() {
    let elsewhere = Fake::with(|_| Some(json(StatusCode::OK, r#"{"token":"t"}"#))).await;
    let location = format!("http://{}/latest/meta-data/", elsewhere.address);
    let tokens = Fake::with(move |_| {
        let mut response = json(StatusCode::TEMPORARY_REDIRECT, "");
        let location = location.parse().unwrap();
        response.headers_mut().insert("location", location);
        Some(response)
    })
    .await;
    let challenge = format!(r#"Bearer realm="http://{}/token""#, tokens.address);
    let registry = Fake::with(move |_| Some(unauthorized(&challenge))).await;
    let credentials = Credentials::Password {
        user: "ada".to_owned(),
        password: "secret".to_owned(),
    };
    let host = Host::new();
    host.pull_as(&registry.name("app"), credentials)
        .await
        .unwrap_err();
    let basic = format!("Basic {}", STANDARD.encode("ada:secret"));
    assert_eq!(tokens.seen()[0].header("authorization"), basic);
    let seen = elsewhere.seen();
    assert!(!seen.is_empty(), "the redirect is followed");
    assert!(
        seen.iter()
            .all(|seen| seen.header("authorization").is_empty())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_tags_without_an_end_is_cut_off() {
    let names: Vec<String> = (0..20_000).map(|n| format!("tag{n}")).collect();
    let page = serde_json::json!({"name": "app", "tags": names}).to_string();
    let pages = Arc::new(AtomicUsize::new(0));
    let registry = {
        let pages = Arc::clone(&pages);
        Fake::with(move |seen| {
            if !seen.path.contains("/tags/list") {
                return None;
            }
            pages.fetch_add(1, Ordering::SeqCst);
            let mut response = json(StatusCode::OK, &page);
            let link = "</v2/app/tags/list?last=x>; rel=\"next\"".parse().unwrap();
            response.headers_mut().insert("link", link);
            Some(response)
        })
        .await
    };
    let host = Host::new();
    let request = Request {
        reference: registry.name("app").parse().unwrap(),
        platform: None,
        credentials: Credentials::Anonymous,
    };
    let pulled = host.distribution.pull_all(&request, &host.reporter()).await;
    let error = pulled.unwrap_err().to_string();
    assert!(error.contains("more than 100000 tags"), "{error}");
    assert_eq!(pages.load(Ordering::SeqCst), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_redirects_ends() {
    let built = image(&[("a", "x")]);
    let layer = built.layers[0].clone();
    let registry = Fake::with(move |seen| {
        seen.is_blob(&layer).then(|| {
            let mut response = json(StatusCode::TEMPORARY_REDIRECT, "");
            let location = seen.path.parse().unwrap();
            response.headers_mut().insert("location", location);
            response
        })
    })
    .await;
    registry.push("app", "latest", &built);
    let error = Host::new().refused(&registry.name("app")).await;
    assert!(error.contains("stopped after 10 redirects"), "{error}");
    assert_eq!(registry.asked(&built.layers[0]).len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_between_two_requests_is_refused() {
    let (shown, given) = (image(&[("a", "x")]), image(&[("a", "y")]));
    let registry = Fake::start().await;
    registry.push("app", "latest", &shown);
    let digest = &shown.manifest.descriptor.digest;
    registry.put(&format!("app/manifests/{digest}"), &given.manifest);
    assert_eq!(
        Host::new().refused(&registry.name("app")).await,
        format!("manifest verification failed for digest {digest}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_under_the_name_of_another_kind_is_refused() {
    let mut built = image(&[("a", "x")]);
    built.manifest.descriptor.media_type = OCI_INDEX.to_owned();
    let registry = Fake::start().await;
    registry.push("app", "latest", &built);
    let error = Host::new().refused(&registry.name("app")).await;
    assert!(error.contains("but was delivered as"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_layers_than_can_be_stacked_are_refused_before_they_are_fetched() {
    let layer = Blob::new(OCI_LAYER_GZIP, gzip(&tar("a", "x")));
    let diff_ids = vec![Digest::of(&tar("a", "x")); 20_000];
    let built = assemble(&Platform::host(), &diff_ids, vec![layer.clone(); 20_000]);
    let registry = Fake::start().await;
    registry.push("app", "latest", &built);
    let start = Instant::now();
    let error = Host::new().refused(&registry.name("app")).await;
    assert!(error.contains("max depth exceeded"), "{error}");
    assert_eq!(registry.asked(&layer).len(), 0);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_was_not_asked_for_is_refused() {
    let built = image(&[("a", "x")]);
    let layer = built.layers[0].clone();
    let registry = {
        let layer = layer.clone();
        Fake::with(move |seen| {
            let from = layer.bytes.len() / 2;
            let part = crate::fake::part(layer.bytes.clone().into(), &format!("bytes={from}-"));
            seen.is_blob(&layer).then_some(part)
        })
        .await
    };
    registry.push("app", "latest", &built);
    let host = Host::with(|config| config.download_attempts = 2);
    let error = host.refused(&registry.name("app")).await;
    assert!(error.contains("instead of 0"), "{error}");
}

/// What is sent after an answer at most, in bytes.
const FLOOD: usize = 64 << 20;

/// Answers every connection with these bytes and then as much of `flood` as is taken. Counts the
/// connections on which all of [`FLOOD`] was taken.
fn raw(answer: &'static [u8], flood: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let swallowed = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&swallowed);
    // Ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                drop(stream.read(&mut request));
                drop(stream.write_all(answer));
                let mut sent = 0;
                while !flood.is_empty() && stream.write_all(flood).is_ok() {
                    sent += flood.len();
                    if sent >= FLOOD {
                        count.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                }
            });
        }
    });
    (address, swallowed)
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_endless_headers_are_refused() {
    for (answer, flood) in [
        (
            &b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"[..],
            &b""[..],
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            b"",
        ),
        (b"HTTP/9.9 200 OK\r\n\r\n", b""),
        (b"\x16\x03\x01\x00\x00", b""),
        (b"HTTP/1.1 200 OK\r\nX: ", &[b'x'; 4096]),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\nC: d\r\nE: f\r\nG: h\r\n"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1;x=y\r\n \r\n",
        ),
    ] {
        let (address, swallowed) = raw(answer, flood);
        let start = Instant::now();
        let shown = String::from_utf8_lossy(answer).into_owned();
        Host::new().refused(&format!("{address}/app")).await;
        assert!(start.elapsed() < Duration::from_secs(10), "{shown}");
        assert_eq!(swallowed.load(Ordering::SeqCst), 0, "{shown}");
    }
}
