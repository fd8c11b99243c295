//! The client: redirects, proxies, lost connections, and errors that say what happened.

use std::time::Duration;

use berth_http::proxy::Proxies;
use berth_http::{Client, Error, client};
use berth_tasks::Scope;
use http::header::{AUTHORIZATION, HOST, LOCATION};
use http::{HeaderMap, Method, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{get, read, start, text};

fn redirect(to: &str) -> Response<berth_http::Body> {
    let mut response = text("");
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, to.parse().unwrap());
    response
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let scope = Scope::new();
    let far = start(&scope, |request: http::Request<_>| async move {
        text(format!("{:?}", request.headers().get(AUTHORIZATION)))
    })
    .await;
    let near = start(&scope, move |request: http::Request<_>| async move {
        match request.uri().path() {
            "/far" => redirect(&format!("http://{far}/x")),
            "/near" => redirect("/shown"),
            _ => text(format!("{:?}", request.headers().get(AUTHORIZATION))),
        }
    })
    .await;
    let client = Client::new(client::Config::default(), &scope);
    let fetch = async |path: &str| {
        let uri = format!("http://{near}{path}").parse().unwrap();
        let headers = HeaderMap::from_iter([(AUTHORIZATION, "secret".parse().unwrap())]);
        read(client.fetch(Method::GET, uri, headers).await.unwrap()).await
    };
    assert_eq!(fetch("/near").await, "Some(\"secret\")");
    assert_eq!(fetch("/far").await, "None");
    scope.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn redirects_lead_to_http_only_and_not_round_in_circles() {
    let scope = Scope::new();
    let address = start(&scope, |request: http::Request<_>| async move {
        match request.uri().path() {
            "/file" => redirect("file:///etc/passwd"),
            _ => redirect("/again"),
        }
    })
    .await;
    let client = Client::new(client::Config::default(), &scope);
    let fetch = async |path: &str| {
        let uri = format!("http://{address}{path}").parse().unwrap();
        let result = client.fetch(Method::GET, uri, HeaderMap::new()).await;
        result.map(|_| ()).unwrap_err()
    };
    let error = fetch("/file").await;
    assert!(matches!(error, Error::Uri { .. }), "{error:?}");
    let error = fetch("/again").await;
    assert!(matches!(error, Error::Redirects(10)), "{error:?}");
    scope.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn plain_http_goes_through_the_proxy_in_absolute_form() {
    let scope = Scope::new();
    let proxy = start(&scope, |request: http::Request<_>| async move {
        let authorization = &request.headers()["proxy-authorization"];
        let host = &request.headers()[HOST];
        text(format!("{} {host:?} {authorization:?}", request.uri()))
    })
    .await;
    let config = client::Config {
        proxies: Proxies::parse(&format!("http://me:pw@{proxy}"), "", "").unwrap(),
        ..client::Config::default()
    };
    let client = Client::new(config, &scope);
    let answer = read(
        client
            .send(get("http://far.example:8080/a?b"))
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        answer,
        "http://far.example:8080/a?b \"far.example:8080\" Sensitive"
            .replace("Sensitive", "\"Basic bWU6cHc=\"")
    );
    scope.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_tls_client_says_when_the_server_speaks_plain_http() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let scope = Scope::new();
    scope.spawn("plain server", async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await.unwrap();
        stream
            .write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    });
    let client = Client::new(client::Config::default(), &scope);
    let result = client.send(get(&format!("https://{address}/"))).await;
    let error = result.map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::NotTls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refused_connection_names_the_address() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let client = Client::new(client::Config::default(), &Scope::new());
    let result = client.send(get(&format!("http://{address}/"))).await;
    match result.map(|_| ()).unwrap_err() {
        Error::Dial {
            address: named,
            source,
            ..
        } => {
            assert_eq!(named, address.to_string());
            assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_replaced() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let scope = Scope::new();
    scope.spawn("one answer a connection", async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
        }
    });
    let client = Client::new(client::Config::default(), &scope);
    for _ in 0..20 {
        let response = client
            .send(get(&format!("http://{address}/")))
            .await
            .unwrap();
        assert_eq!(read(response).await, "ok");
    }
    scope.cancel();
}

#[tokio::test]
async fn a_body_is_read_whole_or_refused_at_the_limit() {
    let (sender, body) = berth_http::body::channel(4);
    for chunk in ["one", "two", "three"] {
        sender.send(chunk).await.unwrap();
    }
    drop(sender);
    assert_eq!(
        berth_http::body::read(body, 11).await.unwrap(),
        "onetwothree"
    );
    let (sender, body) = berth_http::body::channel(4);
    sender.send("0123456789").await.unwrap();
    sender.send("01").await.unwrap();
    drop(sender);
    assert!(berth_http::body::read(body, 11).await.is_err());
}
