//! The network in network namespaces that the tests make: a machine in which `Net` runs, and
//! another host that is connected to it. Needs root; without it every test says so and passes.

mod machine;

mod firewall;
mod firewalld;
mod lifecycle;
mod published;
mod reach;
mod speed;

/// Not a test: the port relay as a process of its own, started by [`machine::Machine`] with the
/// listening socket as its standard input.
#[test]
#[ignore = "the relay's process, started by the other tests"]
fn relay_process() {
    use std::os::fd::AsFd;
    let listener = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .expect("the socket");
    let code = berth_net::relay::main(listener.into());
    assert_eq!(code, 0);
}
