//! `--link` on the default bridge: names in `hosts`, variables, and what follows the linked
//! container.

use berth_testkit::Daemon;

use crate::{CLIENTS, daemon, inspect, run_detached};

fn address(daemon: &Daemon, container: &str) -> String {
    inspect(daemon, container, "{{.NetworkSettings.IPAddress}}")
}

fn exec(daemon: &Daemon, container: &str, line: &str) -> String {
    let output = daemon.docker(&["exec", container, "sh", "-c", line]);
    output.ok().to_owned()
}

#[test]
fn a_linked_container_is_found_by_its_names_and_variables_also_after_its_restart() {
    let daemon = daemon();
    let id = run_detached(
        &daemon,
        "--name store --hostname storehost --expose 6379 --expose 6380 -e PASSWORD=secret",
        "exec sleep 1000",
    );
    for client in CLIENTS {
        client(
            &daemon,
            &[
                "run",
                "-d",
                "--name",
                "web",
                "--link",
                "store:my-db",
                "--link",
                &id,
                "busybox",
                "sh",
                "-c",
                "env >/env; exec sleep 1000",
            ],
        )
        .ok();
        let first = address(&daemon, "store");
        let hosts = exec(&daemon, "web", "grep store /etc/hosts");
        assert_eq!(
            hosts,
            format!("{first}\tmy-db storehost store\n{first}\t{id} storehost store")
        );
        for lines in [
            exec(&daemon, "web", "cat /env"),
            exec(&daemon, "web", "env"),
        ] {
            for expect in [
                format!("MY_DB_PORT=tcp://{first}:6379"),
                format!("MY_DB_PORT_6379_TCP_ADDR={first}"),
                format!("MY_DB_PORT_6379_TCP_END=tcp://{first}:6380"),
                "MY_DB_NAME=/web/my-db".to_owned(),
                "MY_DB_ENV_PASSWORD=secret".to_owned(),
            ] {
                assert!(
                    lines.lines().any(|line| line == expect),
                    "{expect}: {lines}"
                );
            }
        }
        let links = inspect(&daemon, "web", "{{json .HostConfig.Links}}");
        let expect = format!(r#"["/store:/web/my-db","/store:/web/{id}"]"#);
        assert_eq!(links, expect);
        let names = daemon.docker(&[
            "ps",
            "--no-trunc",
            "-f",
            "name=store",
            "--format",
            "{{.Names}}",
        ]);
        assert_eq!(names.ok(), format!("store,web/my-db,web/{id}"));

        // It comes back with another address.
        daemon.docker(&["stop", "-t", "0", "store"]).ok();
        let in_the_way = run_detached(&daemon, "--rm", "exec sleep 1000");
        daemon.docker(&["start", "store"]).ok();
        let second = address(&daemon, "store");
        assert_ne!(second, first);
        let found = exec(&daemon, "web", "ping -c1 -W2 my-db | head -1");
        assert!(found.contains(&format!("({second})")), "{found}");
        daemon.docker(&["rm", "-f", &in_the_way]).ok();

        // A killed daemon does not forget it, nor does a renamed container.
        daemon.docker(&["rename", "store", "renamed"]).ok();
        daemon.docker(&["restart", "-t", "0", "web"]).ok();
        let hosts = exec(&daemon, "web", "grep my-db /etc/hosts");
        assert_eq!(hosts, format!("{second}\tmy-db storehost renamed"));
        daemon.docker(&["rename", "renamed", "store"]).ok();

        let unlinked = client(&daemon, &["rm", "--link", "/web/my-db"]);
        assert_eq!(unlinked.ok(), "/web/my-db");
        let links = inspect(&daemon, "web", "{{json .HostConfig.Links}}");
        assert_eq!(links, format!(r#"["/store:/web/{id}"]"#));
        daemon.docker(&["rm", "-f", "web"]).ok();
    }
}

#[test]
fn links_that_cannot_be_are_refused_in_dockers_words() {
    let daemon = daemon();
    run_detached(&daemon, "--name gone", "true");
    run_detached(&daemon, "--name hosted --network host", "exec sleep 1000");
    let create = |link: &str| {
        let words = ["create", "--name", "web", "--link", link, "busybox", "true"];
        daemon.docker(&words)
    };
    create("nosuch:db").fails(
        1,
        "could not get container for nosuch: No such container: nosuch",
    );
    create("hosted:db").fails(
        1,
        "conflicting options: host type networking can't be used with links. This would result \
         in undefined behavior",
    );
    daemon.docker(&["wait", "gone"]).ok();
    create("gone:db").ok();
    let started = daemon.docker(&["start", "web"]);
    started.fails(
        1,
        "Cannot link to a non running container: /gone AS /web/db",
    );
    assert_eq!(inspect(&daemon, "web", "{{.State.Status}}"), "created");
    daemon.docker(&["rm", "--link", "web"]).fails(
        1,
        "Conflict, cannot remove the default link name of the container",
    );
}
