//! Who may pull what, and what registries and networks answer: in Docker's words.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_image::Kind;
use berth_image::distribution::Credentials;
use http::{Response, StatusCode};

use crate::Host;
use crate::built::image;
use crate::fake::{Fake, error, json, unauthorized};

fn password(user: &str, password: &str) -> Credentials {
    Credentials::Password {
        user: user.to_owned(),
        password: password.to_owned(),
    }
}

/// A token server: anonymous users get `guest`, `ada` with `secret` gets `member`.
async fn token_server() -> Fake {
    Fake::with(|seen| {
        let query = seen.path.split_once('?').map_or("", |(_, query)| query);
        assert!(query.contains("scope=repository%3Aapp%3Apull"), "{query}");
        assert!(query.contains("service=the%20registry"), "{query}");
        let ada = format!("Basic {}", STANDARD.encode("ada:secret"));
        Some(match seen.header("authorization") {
            "" => json(StatusCode::OK, r#"{"token":"guest"}"#),
            known if known == ada => {
                assert!(query.contains("account=ada"), "{query}");
                json(
                    StatusCode::OK,
                    r#"{"access_token":"member","expires_in":300}"#,
                )
            }
            _ => json(
                StatusCode::UNAUTHORIZED,
                r#"{"details":"incorrect username or password"}"#,
            ),
        })
    })
    .await
}

/// A registry that takes only the given token.
async fn behind(tokens: &Fake, wanted: &'static str) -> Fake {
    let challenge = format!(
        r#"Bearer realm="http://{}/token",service="the registry""#,
        tokens.address
    );
    Fake::with(move |seen| match seen.header("authorization") {
        given if given == format!("Bearer {wanted}") => None,
        "" => Some(unauthorized(&challenge)),
        _ => Some(unauthorized(&format!(
            r#"{challenge},error="insufficient_scope""#
        ))),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anonymous_token_is_fetched_once_for_all_requests() {
    let tokens = token_server().await;
    let registry = behind(&tokens, "guest").await;
    registry.push(
        "app",
        "latest",
        &image(&[("a", "x"), ("b", "y"), ("c", "z")]),
    );
    Host::new().pull(&registry.name("app")).await.unwrap();
    assert_eq!(tokens.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_fetched_with_the_users_password() {
    let tokens = token_server().await;
    let registry = behind(&tokens, "member").await;
    registry.push("app", "latest", &image(&[("a", "x")]));
    let name = registry.name("app");
    let host = Host::new();
    host.pull_as(&name, password("ada", "secret"))
        .await
        .unwrap();

    let denied = Host::new().pull(&name).await.unwrap_err();
    assert_eq!(
        denied.to_string(),
        format!(
            "pull access denied for {name}, repository does not exist or may require 'docker \
             login': denied: requested access to the resource is denied"
        )
    );
    assert_eq!(denied.kind(), Kind::NotFound);

    let wrong = Host::new()
        .pull_as(&name, password("ada", "guess"))
        .await
        .unwrap_err();
    assert_eq!(
        wrong.to_string(),
        format!(
            "Head \"http://{}/v2/app/manifests/latest\": unauthorized: incorrect username or password",
            registry.address
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_meanwhile_is_replaced() {
    let issued = Arc::new(AtomicUsize::new(0));
    let tokens = {
        let issued = Arc::clone(&issued);
        Fake::with(move |_| {
            let number = issued.fetch_add(1, Ordering::SeqCst);
            Some(json(StatusCode::OK, &format!(r#"{{"token":"t{number}"}}"#)))
        })
        .await
    };
    let challenge = format!(r#"Bearer realm="http://{}/token""#, tokens.address);
    // The first token is good for manifests only.
    let registry = Fake::with(move |seen| {
        let expired = seen.header("authorization") == "Bearer t0" && seen.path.contains("/blobs/");
        let demand = match (seen.header("authorization"), expired) {
            ("", _) => challenge.clone(),
            (_, true) => format!(r#"{challenge},error="invalid_token""#),
            _ => return None,
        };
        Some(unauthorized(&demand))
    })
    .await;
    registry.push(
        "app",
        "latest",
        &image(&[("a", "x"), ("b", "y"), ("c", "z")]),
    );
    Host::new().pull(&registry.name("app")).await.unwrap();
    assert_eq!(issued.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_posted_and_a_registry_token_sent_as_it_is() {
    let tokens = Fake::with(|seen| {
        assert_eq!(seen.method, http::Method::POST);
        assert_eq!(
            seen.header("content-type"),
            "application/x-www-form-urlencoded"
        );
        Some(json(StatusCode::OK, r#"{"access_token":"member"}"#))
    })
    .await;
    let registry = behind(&tokens, "member").await;
    registry.push("app", "latest", &image(&[("a", "x")]));
    let name = registry.name("app");
    let identity = Credentials::Identity {
        token: "refresh".to_owned(),
    };
    Host::new().pull_as(&name, identity).await.unwrap();
    let bearer = Credentials::Bearer {
        token: "member".to_owned(),
    };
    Host::new().pull_as(&name, bearer).await.unwrap();
    assert_eq!(tokens.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_credentials_go_to_the_registry_and_not_to_where_it_redirects() {
    let built = image(&[("a", "x")]);
    let layer = built.layers[0].clone();
    let storage = Fake::with(|seen| {
        assert_eq!(seen.header("authorization"), "");
        None
    })
    .await;
    storage.push("app", "latest", &built);
    let elsewhere = storage.name(&format!("v2/app/blobs/{}", layer.descriptor.digest));
    let ada = format!("Basic {}", STANDARD.encode("ada:secret"));
    let registry = Fake::with(move |seen| {
        if seen.header("authorization") != ada {
            return Some(unauthorized(r#"Basic realm="r""#));
        }
        seen.is_blob(&layer).then(|| {
            Response::builder()
                .status(StatusCode::TEMPORARY_REDIRECT)
                .header("location", format!("http://{elsewhere}"))
                .body(berth_http::body::empty())
                .unwrap()
        })
    })
    .await;
    registry.push("app", "latest", &built);
    let name = registry.name("app");
    Host::new()
        .pull_as(&name, password("ada", "secret"))
        .await
        .unwrap();
    assert_eq!(storage.seen().len(), 1);

    let manifest = format!("http://{}/v2/app/manifests/latest", registry.address);
    assert_eq!(
        Host::new().refused(&name).await,
        format!("Head \"{manifest}\": no basic auth credentials")
    );
    let wrong = Host::new()
        .pull_as(&name, password("ada", "guess"))
        .await
        .unwrap_err();
    assert_eq!(wrong.to_string(), "unauthorized: authentication required");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_said_in_dockers_words() {
    let registry = Fake::with(|seen| {
        seen.path
            .contains("nosuch")
            .then(|| error(StatusCode::NOT_FOUND, "NAME_UNKNOWN"))
    })
    .await;
    let (app, nosuch) = (registry.name("app:y"), registry.name("nosuch"));
    let unknown = Host::new().pull(&app).await.unwrap_err();
    assert_eq!(
        unknown.to_string(),
        format!("manifest for {app} not found: manifest unknown: manifest unknown")
    );
    assert_eq!(unknown.kind(), Kind::NotFound);
    assert_eq!(
        Host::new().refused(&nosuch).await,
        format!(
            "repository {nosuch} not found: name unknown: repository name not known to registry"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_is_named() {
    let closed = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let refused = "connect: connection refused";
    assert_eq!(
        Host::new().refused(&format!("127.0.0.1:{port}/app")).await,
        format!("Get \"http://127.0.0.1:{port}/v2/\": dial tcp 127.0.0.1:{port}: {refused}")
    );
    // Not on this machine as far as the name goes: TLS only.
    assert_eq!(
        Host::new().refused(&format!("0.0.0.0:{port}/app")).await,
        format!("Get \"https://0.0.0.0:{port}/v2/\": dial tcp 0.0.0.0:{port}: {refused}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_only_spoken_where_it_is_allowed() {
    let registry = Fake::start().await;
    registry.push("app", "latest", &image(&[("a", "x")]));
    let port = registry.address.port();
    let name = format!("0.0.0.0:{port}/app");
    assert_eq!(
        Host::new().refused(&name).await,
        format!(
            "Get \"https://0.0.0.0:{port}/v2/\": http: server gave HTTP response to HTTPS client"
        )
    );
    for rule in [format!("0.0.0.0:{port}"), "0.0.0.0/8".to_owned()] {
        let host = Host::with(|config| config.registries.insecure = vec![rule.parse().unwrap()]);
        host.pull(&name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_no_registry_is_refused() {
    let server = Fake::with(|_| Some(json(StatusCode::NOT_FOUND, "<html>"))).await;
    let error = Host::new().refused(&server.name("app")).await;
    assert!(
        error.starts_with("error parsing HTTP 404 response body: "),
        "{error}"
    );
}
