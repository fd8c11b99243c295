//! What a container is given: volumes, binds, names, environment, the daemon's socket.

use crate::{CLIENTS, daemon};

#[test]
fn volumes_and_binds_keep_data() {
    let daemon = daemon();
    let host = daemon.root.join("bound");
    std::fs::create_dir(&host).unwrap();
    for client in CLIENTS {
        let bind = format!("{}:/data", host.display());
        client(
            &daemon,
            &[
                "run",
                "--rm",
                "-v",
                &bind,
                "busybox",
                "sh",
                "-c",
                "echo bound >/data/f",
            ],
        )
        .ok();
        assert_eq!(std::fs::read_to_string(host.join("f")).unwrap(), "bound\n");
        let read_only = format!("{bind}:ro");
        let output = client(
            &daemon,
            &[
                "run", "--rm", "-v", &read_only, "busybox", "touch", "/data/g",
            ],
        );
        output.fails(1, "Read-only file system");
        client(
            &daemon,
            &[
                "run",
                "--rm",
                "-v",
                "named:/v",
                "busybox",
                "sh",
                "-c",
                "echo kept >/v/f",
            ],
        )
        .ok();
        assert_eq!(
            client(
                &daemon,
                &[
                    "run",
                    "--rm",
                    "--mount",
                    "type=volume,src=named,dst=/w",
                    "busybox",
                    "cat",
                    "/w/f"
                ]
            )
            .ok(),
            "kept"
        );
        let mounts = client(
            &daemon,
            &[
                "run",
                "--rm",
                "--tmpfs",
                "/t:size=1m",
                "busybox",
                "df",
                "/t",
            ],
        );
        assert!(mounts.ok().contains("1024"), "{}", mounts.stdout);
        client(&daemon, &["volume", "rm", "named"]).ok();
    }
}

#[test]
fn names_hosts_and_environment_reach_the_container() {
    let daemon = daemon();
    for client in CLIENTS {
        let run = |words: &[&str]| {
            let mut all = vec!["run", "--rm"];
            all.extend(words);
            client(&daemon, &all).ok().to_owned()
        };
        assert_eq!(run(&["-h", "box", "busybox", "hostname"]), "box");
        assert!(
            run(&["--add-host", "db:10.9.8.7", "busybox", "cat", "/etc/hosts"])
                .contains("10.9.8.7\tdb")
        );
        assert!(
            run(&[
                "--add-host",
                "up:host-gateway",
                "busybox",
                "cat",
                "/etc/hosts"
            ])
            .contains("\tup")
        );
        assert_eq!(
            run(&[
                "-e",
                "X=y",
                "-w",
                "/var",
                "busybox",
                "sh",
                "-c",
                "echo $X $PWD $HOME"
            ]),
            "y /var /root"
        );
        assert_eq!(
            run(&["-u", "33:29", "busybox", "id"]),
            "uid=33(www) gid=29(audio) groups=29(audio)"
        );
        assert_eq!(run(&["--entrypoint", "echo", "busybox", "x"]), "x");
        let pid = run(&["--init", "busybox", "sh", "-c", "echo $$"]);
        assert!(pid.parse::<u32>().unwrap() > 1, "{pid}");
        // Nothing of the daemon's own command line is seen in there.
        let words = run(&["--init", "busybox", "cat", "/proc/1/cmdline"]);
        let words = words.trim_end_matches('\0').split('\0');
        let words: Vec<&str> = words.collect();
        assert_eq!(words, ["/sbin/docker-init", "--", "cat", "/proc/1/cmdline"]);
    }
}

#[test]
fn the_mounted_socket_gives_the_api_to_a_container() {
    let daemon = daemon();
    let docker = std::path::absolute(which("docker")).unwrap();
    let socket = format!("{}:/var/run/docker.sock", daemon.socket().display());
    let client = format!("{}:/usr/bin/docker:ro", docker.display());
    let output = daemon.docker(&[
        "run",
        "--rm",
        "--name",
        "inside",
        "-v",
        &socket,
        "-v",
        &client,
        "busybox",
        "docker",
        "ps",
        "--format",
        "{{.Names}}",
    ]);
    assert_eq!(output.ok(), "inside");
}

fn which(name: &str) -> std::path::PathBuf {
    let given = berth_testkit::image::docker();
    if given.is_absolute() {
        given
    } else {
        berth_testkit::sh(&format!("command -v {name}")).into()
    }
}
