//! Hijacked connections: with and without an upgrade, direct and through a proxy task.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use berth_http::{Body, Client, Listener, client, serve, upgrade};
use berth_tasks::Scope;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{get, start};

/// Turns the connection into a descriptor and echoes on it in capitals, half-close included.
async fn shout(request: Request<hyper::body::Incoming>, scope: Scope) -> Response<Body> {
    let upgrading = request.headers().contains_key("upgrade");
    let builder = Response::builder().header("content-type", "application/vnd.docker.raw-stream");
    let head = if upgrading {
        builder
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .extension(hyper::ext::ReasonPhrase::from_static(b"UPGRADED"))
            .header("connection", "Upgrade")
            .header("upgrade", "tcp")
    } else {
        builder.status(StatusCode::OK)
    };
    upgrade::hijack(head.body(()).unwrap(), move |connection| async move {
        let fd = connection.into_fd(&scope).unwrap();
        scope.spawn_blocking(move || {
            rustix::io::ioctl_fionbio(&fd, false).unwrap();
            // Every kind of stream socket reads and writes alike.
            let mut stream = UnixStream::from(fd);
            let mut input = Vec::new();
            stream.read_to_end(&mut input).unwrap();
            stream.write_all(&input.to_ascii_uppercase()).unwrap();
        });
    })
}

async fn exchange(request: &str, then: &str) -> String {
    let scope = Scope::new();
    let service = {
        let scope = scope.clone();
        move |request| shout(request, scope.clone())
    };
    let address = start(&scope, service).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(then.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    stream.read_to_end(&mut answer).await.unwrap();
    scope.drain(Duration::from_secs(5)).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn an_upgrade_is_answered_in_dockerds_words() {
    let request = "POST /attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    assert_eq!(
        exchange(request, "hello").await,
        "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
         Connection: Upgrade\r\nUpgrade: tcp\r\n\r\nHELLO"
    );
}

#[tokio::test]
async fn a_raw_stream_needs_no_upgrade_header() {
    assert_eq!(
        exchange("POST /attach HTTP/1.1\r\nHost: x\r\n\r\n", "hello").await,
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nHELLO"
    );
}

#[tokio::test]
async fn bytes_sent_along_with_the_request_come_first() {
    let request = "POST /attach HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nearly ";
    let answer = exchange(request, "bird").await;
    assert!(answer.ends_with("\r\n\r\nEARLY BIRD"), "{answer}");
}

#[tokio::test]
async fn our_client_gets_the_raw_socket_of_an_upgrade() {
    let scope = Scope::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = Listener::unix(&path, 0o600, None).unwrap();
    let service = {
        let scope = scope.clone();
        move |request| shout(request, scope.clone())
    };
    let serving = serve::serve(listener, scope.clone(), serve::Limits::default(), service);
    scope.spawn("server", serving);
    let client = Client::unix(&path, &scope);
    let mut request = get("http://localhost/attach");
    let headers = request.headers_mut();
    headers.insert("connection", "Upgrade".parse().unwrap());
    headers.insert("upgrade", "tcp".parse().unwrap());
    let mut response = client.send(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let connection = upgrade::from_response(&mut response).await.unwrap();
    let fd = connection.into_fd(&scope).unwrap();
    let peer = rustix::net::sockopt::socket_peercred(&fd).unwrap();
    assert_eq!(peer.pid, rustix::process::getpid(), "no proxy between");
    let answer = tokio::task::spawn_blocking(move || {
        rustix::io::ioctl_fionbio(&fd, false).unwrap();
        let mut stream = UnixStream::from(fd);
        stream.write_all(b"to and fro").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert_eq!(answer.await.unwrap(), "TO AND FRO");
    assert!(scope.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_hijack_over_tls_like_streams_goes_through_a_socketpair() {
    let scope = Scope::new();
    let (near, mut far) = tokio::io::duplex(64);
    let stream = berth_http::Stream::other(near);
    let connection = upgrade::Connection::new(stream, bytes::Bytes::from_static(b"first "));
    let fd = connection.into_fd(&scope).unwrap();
    let echo = tokio::task::spawn_blocking(move || {
        rustix::io::ioctl_fionbio(&fd, false).unwrap();
        let mut stream = UnixStream::from(fd);
        let mut input = String::new();
        stream.read_to_string(&mut input).unwrap();
        stream.write_all(input.as_bytes()).unwrap();
    });
    far.write_all(b"second").await.unwrap();
    far.shutdown().await.unwrap();
    let mut answer = String::new();
    far.read_to_string(&mut answer).await.unwrap();
    echo.await.unwrap();
    assert_eq!(answer, "first second");
    assert!(scope.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_connection_after_a_plain_answer_can_still_be_hijacked() {
    let scope = Scope::new();
    let service = {
        let scope = scope.clone();
        move |request: Request<hyper::body::Incoming>| {
            let scope = scope.clone();
            async move {
                match request.uri().path() {
                    "/attach" => shout(request, scope).await,
                    _ => crate::text("plain"),
                }
            }
        }
    };
    let address = start(&scope, service).await;
    let client = Client::new(client::Config::default(), &scope);
    let plain = client
        .send(get(&format!("http://{address}/")))
        .await
        .unwrap();
    assert_eq!(crate::read(plain).await, "plain");
    let mut request = get(&format!("http://{address}/attach"));
    let headers = request.headers_mut();
    headers.insert("connection", "Upgrade".parse().unwrap());
    headers.insert("upgrade", "tcp".parse().unwrap());
    let mut response = client.send(request).await.unwrap();
    let mut raw = upgrade::from_response(&mut response).await.unwrap();
    raw.write_all(b"again").await.unwrap();
    raw.shutdown().await.unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "AGAIN");
    assert!(scope.drain(Duration::from_secs(5)).await);
}
