//! Listening sockets: stale and taken paths, modes, inherited descriptors.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;

use berth_http::Listener;
use berth_http::listen::Error;

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let first = Listener::unix(&path, 0o660, None).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let second = Listener::unix(&path, 0o660, None);
    assert!(matches!(second, Err(Error::InUse { .. })), "{second:?}");
    drop(first);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_listener_does_not_remove_its_successors_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let first = Listener::unix(&path, 0o600, None).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = Listener::unix(&path, 0o600, None).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
}

#[tokio::test]
async fn a_listening_descriptor_is_taken_and_any_other_refused() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener::from_fd(OwnedFd::from(socket)).unwrap();
    assert_eq!(listener.local_addr(), Some(address));
    let (connected, accepted) =
        tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
    connected.unwrap();
    accepted.unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let refused = Listener::from_fd(OwnedFd::from(file));
    assert!(matches!(refused, Err(Error::NotListening)));
}
