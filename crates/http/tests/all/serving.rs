//! The serve loop: keep-alive, peers, and the drain.

use std::time::Duration;

use berth_http::listen::Peer;
use berth_http::{Client, Listener, client, serve};
use berth_tasks::Scope;
use tokio::sync::Notify;

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
