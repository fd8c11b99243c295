//! What a container finds in `/etc/resolv.conf`, `/etc/hosts` and `/etc/hostname`.

use berth_testkit::Daemon;

use crate::daemon;

/// A daemon whose host has this `/etc/resolv.conf`, and this one of systemd-resolved.
pub fn with_resolv_conf(host: &str, resolved: Option<&str>) -> Daemon {
    let script = r#"
        d=$(mktemp -d); trap 'rmdir $d 2>/dev/null || true' EXIT
        mount -t tmpfs none $d; printf "$1" >$d/host; mount --bind $d/host /etc/resolv.conf
        mount -t tmpfs none /run
        if [ -n "$2" ]; then mkdir -p /run/systemd/resolve; printf "$2" >/run/systemd/resolve/resolv.conf; fi
        umount -l $d; rmdir $d; shift 2; exec "$@""#;
    let resolved = resolved.unwrap_or_default();
    let under = [
        "unshare", "--mount", "bash", "-ec", script, "bash", host, resolved,
    ];
    let daemon = Daemon::start_under(&under, crate::program(), &[]);
    daemon.load("busybox");
    daemon
}

#[test]
fn a_host_with_only_the_stub_resolver_gives_containers_the_real_servers() {
    let servers = |daemon: &Daemon| {
        let file = daemon.docker(&["run", "--rm", "busybox", "cat", "/etc/resolv.conf"]);
        let lines = file
            .ok()
            .lines()
            .filter(|line| line.starts_with("nameserver"));
        lines.collect::<Vec<_>>().join(" ")
    };
    let stub = "nameserver 127.0.0.53\noptions edns0\nsearch lan\n";
    let daemon = with_resolv_conf(stub, Some("nameserver 192.0.2.53\nsearch lan\n"));
    assert_eq!(servers(&daemon), "nameserver 192.0.2.53");
    drop(daemon);
    let daemon = with_resolv_conf(stub, None);
    assert_eq!(servers(&daemon), "nameserver 8.8.8.8 nameserver 8.8.4.4");
    // On the host's own network the stub works.
    let file = daemon.docker(&[
        "run",
        "--rm",
        "--network",
        "host",
        "busybox",
        "cat",
        "/etc/resolv.conf",
    ]);
    assert!(
        file.ok().contains("nameserver 127.0.0.53"),
        "{}",
        file.stdout
    );
}

#[test]
fn resolv_conf_hosts_and_hostname_are_written() {
    let daemon = daemon();
    let id = daemon
        .docker(&["run", "-d", "--name", "nn", "busybox", "sleep", "1000"])
        .ok()
        .to_owned();
    assert_eq!(
        daemon.docker(&["exec", "nn", "cat", "/etc/hostname"]).ok(),
        &id[..12]
    );
    let hosts = daemon
        .docker(&["exec", "nn", "cat", "/etc/hosts"])
        .ok()
        .to_owned();
    assert!(
        hosts.contains("127.0.0.1\tlocalhost") && hosts.contains(&id[..12]),
        "{hosts}"
    );
    let resolv = daemon.docker(&["exec", "nn", "cat", "/etc/resolv.conf"]);
    assert!(resolv.ok().contains("nameserver "), "{}", resolv.stdout);
    assert!(!resolv.ok().contains("127.0.0.53"), "{}", resolv.stdout);
}
