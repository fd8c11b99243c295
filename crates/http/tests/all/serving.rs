//! The serve loop: keep-alive, peers, and the drain.

use std::time::Duration;

use berth_http::listen::Peer;
use berth_http::{Client, Listener, client, serve};
use berth_tasks::Scope;
use tokio::sync::Notify;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{get, read, start, text};

#[tokio::test]
async fn requests_share_a_kept_connection() {
    let scope = Scope::new();
    let service = |request: http::Request<_>| async move {
        let peer = request.extensions().get::<Peer>().copied();
        text(format!("{peer:?}"))
    };
    let address = start(&scope, service).await;
    let client = Client::new(client::Config::default(), &scope);
    let mut peers = Vec::new();
    for _ in 0..5 {
        let response = client
            .send(get(&format!("http://{address}/x")))
            .await
            .unwrap();
        peers.push(read(response).await);
    }
    peers.dedup();
    assert_eq!(peers.len(), 1, "one source port: {peers:?}");
    assert!(scope.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_unix_peer_is_known_by_its_credentials() {
    let scope = Scope::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = Listener::unix(&path, 0o660, None).unwrap();
    let service = |request: http::Request<_>| async move {
        text(format!("{:?}", request.extensions().get::<Peer>().unwrap()))
    };
    let serving = serve::serve(listener, scope.clone(), serve::Limits::default(), service);
    scope.spawn("server", serving);
    let client = Client::unix(&path, &scope);
    let answer = read(client.send(get("http://localhost/")).await.unwrap()).await;
    let pid = std::process::id();
    assert!(answer.contains(&format!("pid: Some({pid})")), "{answer}");
    assert!(scope.drain(Duration::from_secs(5)).await);
    assert!(!path.exists(), "the socket is removed after the drain");
}

#[tokio::test]
async fn a_drain_lets_the_request_under_way_finish() {
    let scope = Scope::new();
    let entered = std::sync::Arc::new(Notify::new());
    let leave = std::sync::Arc::new(Notify::new());
    let service = {
        let (entered, leave) = (entered.clone(), leave.clone());
        move |_| {
            let (entered, leave) = (entered.clone(), leave.clone());
            async move {
                entered.notify_one();
                leave.notified().await;
                text("done")
            }
        }
    };
    let address = start(&scope, service).await;
    // The client's tasks must outlive the server's scope.
    let client = Client::new(client::Config::default(), &Scope::new());
    let task = Scope::new().spawn("client", async move {
        read(
            client
                .send(get(&format!("http://{address}/")))
                .await
                .unwrap(),
        )
        .await
    });
    entered.notified().await;
    scope.cancel();
    leave.notify_one();
    assert_eq!(task.await.unwrap().unwrap(), "done");
    assert!(scope.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off_at_the_deadline() {
    let scope = Scope::new();
    let entered = std::sync::Arc::new(Notify::new());
    let service = {
        let entered = entered.clone();
        move |_| {
            let entered = entered.clone();
            async move {
                entered.notify_one();
                std::future::pending::<()>().await;
                text("never")
            }
        }
    };
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = serve::Limits {
        drain: Duration::from_millis(50),
        ..serve::Limits::default()
    };
    scope.spawn(
        "server",
        serve::serve(listener, scope.clone(), limits, service),
    );
    let client = Client::new(client::Config::default(), &Scope::new());
    let request = client.send(get(&format!("http://{address}/")));
    let (result, drained) = tokio::join!(request, async {
        entered.notified().await;
        scope.drain(Duration::from_secs(5)).await
    });
    assert!(result.is_err());
    assert!(drained);
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_gets_its_answer() {
    let scope = Scope::new();
    let closed = std::sync::Arc::new(Notify::new());
    let service = {
        let closed = closed.clone();
        move |_| {
            let closed = closed.clone();
            async move {
                closed.notified().await;
                // The end has arrived, and the server's task has had its turn with it.
                tokio::time::sleep(Duration::from_millis(50)).await;
                text("answer")
            }
        }
    };
    let address = start(&scope, service).await;
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream.shutdown().await.unwrap();
    closed.notify_one();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("answer"), "{answer:?}");
    assert!(scope.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn the_request_of_a_client_that_is_gone_is_given_up() {
    /// Tells of its end.
    struct Told(tokio::sync::mpsc::UnboundedSender<&'static str>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.send("given up").unwrap();
        }
    }

    let scope = Scope::new();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let service = move |_| {
        let tell = tell.clone();
        async move {
            tell.send("begun").unwrap();
            let _told = Told(tell);
            std::future::pending::<()>().await;
            text("never")
        }
    };
    let address = start(&scope, service).await;
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    assert_eq!(told.recv().await, Some("begun"));
    drop(stream);
    let end = tokio::time::timeout(Duration::from_secs(30), told.recv()).await;
    assert_eq!(end, Ok(Some("given up")));
    assert!(scope.drain(Duration::from_secs(5)).await);
}
