//! What cannot be given on a network is refused in Docker's words, and leaves the machine as it
//! was.

use berth_testkit::{Daemon, sh, until};

use crate::{daemon, inspect, program, run_detached};

/// Links, addresses and rules of this instance, in one text.
fn machine(daemon: &Daemon) -> String {
    sh(&format!(
        "nft list table ip {0}; nft list table ip6 {0} 2>/dev/null || true
         for bridge in $(nft list set ip {0} bridges | grep -o '\"[^\"]*\"' | tr -d '\"'); do
             ip -o link show master $bridge | cut -d: -f2; ip -o -4 addr show $bridge
         done",
        daemon.instance()
    ))
}

#[test]
fn exhausted_pools_and_subnets_and_taken_addresses_are_refused() {
    let daemon = Daemon::start(
        program(),
        &["--default-address-pool", "base=10.221.0.0/22,size=24"],
    );
    daemon.load("busybox");
    // The default bridge has the first.
    for name in ["a", "b", "c"] {
        daemon.docker(&["network", "create", name]).ok();
    }
    let refused = |status: u16, body: &str, words: &str| {
        let before = machine(&daemon);
        let (got, answer) = daemon.api("POST", "/v1.51/networks/create", Some(body));
        assert_eq!(
            (got, answer["message"].as_str()),
            (status, Some(words)),
            "{body}"
        );
        assert_eq!(machine(&daemon), before);
    };
    refused(
        400,
        r#"{"Name":"d"}"#,
        "all predefined address pools have been fully subnetted",
    );
    refused(409, r#"{"Name":"a"}"#, "network with name a already exists");
    refused(
        500,
        r#"{"Name":"d","IPAM":{"Config":[{"Subnet":"10.222.0.0/24","Gateway":"10.222.0.255"}]}}"#,
        "failed to allocate gateway (10.222.0.255): Address already in use",
    );
    refused(
        400,
        r#"{"Name":"d","Internal":true,"IPAM":{"Config":[{"Subnet":"10.222.0.0/24","AuxiliaryAddresses":{"DefaultGatewayIPv4":"10.222.0.9"}}]}}"#,
        "no gateway can be set on an internal bridge network",
    );
    refused(
        400,
        "[]",
        "invalid JSON: json: cannot unmarshal array into Go value of type network.CreateRequest",
    );
    let (status, answer) = daemon.api(
        "POST",
        "/v1.51/networks/prune?filters=%7B%22until%22%3A%5B%22x%22%5D%7D",
        None,
    );
    assert_eq!(status, 400);
    assert_eq!(
        answer["message"],
        "failed to parse value as time or duration: \"x\""
    );

    let small = ["network", "create", "--subnet", "10.222.0.0/30", "small"];
    let id = daemon.docker(&small).ok().to_owned();
    run_detached(
        &daemon,
        "--name one --network small --ip 10.222.0.2",
        "exec sleep 1000",
    );
    run_detached(&daemon, "--name other --network a", "exec sleep 1000");
    let before = machine(&daemon);
    let run = |options: &[&str], words: &str| {
        let all = [&["run", "--rm"], options, &["busybox", "true"]].concat();
        daemon.docker(&all).fails(125, words);
    };
    run(
        &["--network", "small", "--ip", "10.222.0.2"],
        "failed to set up container networking: Address already in use",
    );
    let full = format!("no available IPv4 addresses on this network's address pools: small ({id})");
    run(&["--network", "small"], &full);
    run(&["--network", "nosuch"], "network nosuch not found");
    let connect = ["network", "connect", "small", "other"];
    daemon.docker(&connect).fails(1, &full);
    let networks = inspect(
        &daemon,
        "other",
        "{{range $n, $_ := .NetworkSettings.Networks}}{{$n}}{{end}}",
    );
    assert_eq!(networks, "a");
    daemon
        .docker(&["network", "rm", "small"])
        .fails(1, "network small has active endpoints");
    // Interfaces of containers that did not start go soon after.
    until("nothing is left", || {
        (machine(&daemon) == before).then_some(())
    });
    daemon.docker(&["rm", "-f", "one", "other"]).ok();
    daemon
        .docker(&["network", "rm", "small", "a", "b", "c"])
        .ok();
}

#[test]
fn a_bridge_that_is_deleted_behind_our_back_hurts_for_a_moment_only() {
    let daemon = daemon();
    let id = daemon.docker(&["network", "create", "app"]).ok().to_owned();
    let delete = format!("ip link del br-{}", &id[..12]);
    run_detached(&daemon, "--name one --network app", "exec sleep 1000");
    run_detached(&daemon, "--name two", "exec sleep 1000");
    sh(&delete);
    daemon.docker(&["network", "connect", "app", "two"]).ok();
    daemon
        .docker(&["exec", "two", "ping", "-c1", "-W2", "one"])
        .ok();
    daemon
        .docker(&["exec", "one", "ping", "-c1", "-W2", "two"])
        .ok();
    sh(&delete);
    daemon
        .docker(&[
            "run",
            "--rm",
            "--network",
            "app",
            "busybox",
            "ping",
            "-c1",
            "-W2",
            "one",
        ])
        .ok();
    sh(&delete);
    daemon.docker(&["network", "disconnect", "app", "two"]).ok();
    daemon.docker(&["rm", "-f", "one", "two"]).ok();
    daemon.docker(&["network", "rm", "app"]).ok();
}
