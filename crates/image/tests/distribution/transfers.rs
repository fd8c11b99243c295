//! Transfers that break, stall or come from servers without ranges.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::built::{image, noise};
use crate::fake::{Fake, cut, part};
use crate::{Host, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_transfer_goes_on_where_it_ended() {
    let text = noise(400_000);
    let built = image(&[("a", &text), ("b", "small")]);
    let layer = built.layers[0].clone();
    let breaks = Arc::new(AtomicUsize::new(0));
    let registry = {
        let (layer, breaks) = (layer.clone(), Arc::clone(&breaks));
        Fake::with(move |seen| {
            // Far more often than the number of attempts without progress.
            if seen.is_blob(&layer) && breaks.fetch_add(1, Ordering::SeqCst) < 9 {
                return Some(cut(&layer.bytes, seen.header("range"), 30_000));
            }
            None
        })
        .await
    };
    registry.push("app", "latest", &built);
    let host = Host::new();
    let name = registry.name("app");
    host.pull(&name).await.unwrap();
    assert_eq!(host.file(&name, "a"), Some(text));
    let ranges: Vec<String> = registry
        .asked(&layer)
        .iter()
        .map(|seen| seen.header("range").to_owned())
        .collect();
    let mut expect = vec![String::new()];
    expect.extend((1..10).map(|n| format!("bytes={}-", n * 30_000)));
    assert_eq!(ranges, expect);
    let retry = format!("{}: Retrying in 1 second", layer.short());
    assert!(host.said().contains(&retry));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_sends_it_all_again() {
    let text = noise(100_000);
    let built = image(&[("a", &text)]);
    let layer = built.layers[0].clone();
    let breaks = Arc::new(AtomicUsize::new(0));
    let registry = {
        let (layer, breaks) = (layer.clone(), Arc::clone(&breaks));
        Fake::with(move |seen| {
            if !seen.is_blob(&layer) {
                return None;
            }
            Some(if breaks.fetch_add(1, Ordering::SeqCst) == 0 {
                cut(&layer.bytes, "", 20_000)
            } else {
                part(Bytes::from(layer.bytes.clone()), "")
            })
        })
        .await
    };
    registry.push("app", "latest", &built);
    let host = Host::new();
    let name = registry.name("app");
    host.pull(&name).await.unwrap();
    assert_eq!(host.file(&name, "a"), Some(text));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_never_gets_further_fails_after_the_attempts() {
    let text = noise(100_000);
    let built = image(&[("a", &text)]);
    let layer = built.layers[0].clone();
    let registry = {
        let layer = layer.clone();
        Fake::with(move |seen| {
            let first = seen.header("range").is_empty();
            let length = if first { 20_000 } else { 0 };
            seen.is_blob(&layer)
                .then(|| cut(&layer.bytes, seen.header("range"), length))
        })
        .await
    };
    registry.push("app", "latest", &built);
    let host = Host::with(|config| config.download_attempts = 3);
    let error = host.refused(&registry.name("app")).await;
    assert!(
        error.contains(&format!("/blobs/{}: ", layer.descriptor.digest)),
        "{error}"
    );
    assert_eq!(
        registry.asked(&layer).len(),
        4,
        "one with progress, three without"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_registry_is_asked_again() {
    let built = image(&[("a", "x")]);
    let layer = built.layers[0].clone();
    let config = built.config.clone();
    let refusals = Arc::new(Mutex::new(vec![
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
    ]));
    let registry = {
        let refusals = Arc::clone(&refusals);
        Fake::with(move |seen| {
            let status = match seen.is_blob(&layer) || seen.is_blob(&config) {
                true => refusals.lock().unwrap().pop()?,
                false => return None,
            };
            Some(crate::fake::json(status, "{}"))
        })
        .await
    };
    registry.push("app", "latest", &built);
    Host::new().pull(&registry.name("app")).await.unwrap();
    assert!(refusals.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_stands_still_is_taken_up_again() {
    let text = noise(100_000);
    let built = image(&[("a", &text)]);
    let layer = built.layers[0].clone();
    let stalls = Arc::new(AtomicUsize::new(0));
    let registry = {
        let (layer, stalls) = (layer.clone(), Arc::clone(&stalls));
        Fake::with(move |seen| {
            if !seen.is_blob(&layer) || stalls.fetch_add(1, Ordering::SeqCst) > 0 {
                return None;
            }
            use futures_util::StreamExt;
            let first = Ok::<_, std::io::Error>(Bytes::copy_from_slice(&layer.bytes[..10_000]));
            let pieces = futures_util::stream::iter([first]).chain(futures_util::stream::pending());
            Some(Response::new(berth_http::body::stream(pieces)))
        })
        .await
    };
    registry.push("app", "latest", &built);
    let host = Host::with(|config| config.stall_timeout = Duration::from_millis(100));
    host.pull(&registry.name("app")).await.unwrap();
    let asked = registry.asked(&layer);
    assert_eq!(asked[1].header("range"), "bytes=10000-");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_dropped_leaves_nothing() {
    let text = noise(100_000);
    let built = image(&[("a", &text), ("b", "x")]);
    let layer = built.layers[0].clone();
    let registry = {
        let layer = layer.clone();
        Fake::with(move |seen| {
            if !seen.is_blob(&layer) {
                return None;
            }
            use futures_util::StreamExt;
            let first = Ok::<_, std::io::Error>(Bytes::copy_from_slice(&layer.bytes[..50_000]));
            let pieces = futures_util::stream::iter([first]).chain(futures_util::stream::pending());
            Some(Response::new(berth_http::body::stream(pieces)))
        })
        .await
    };
    registry.push("app", "latest", &built);
    let host = Host::new();
    let name = registry.name("app");
    {
        let pull = host.pull(&name);
        let downloading = format!("{}: Downloading", layer.short());
        let seen = wait_for("download", || host.said().contains(&downloading));
        tokio::select! {
            result = pull => panic!("{result:?}"),
            () = seen => {}
        }
    }
    host.is_clean().await;
    assert!(host.scope.drain(Duration::from_secs(5)).await);
}
