//! Pulling from Debian's docker-registry, where another tool has pushed.

use std::process::Command;

use berth_testkit::{Daemon, Registry, run, sh, until};

use crate::program;

#[test]
fn redis_is_pulled_and_answers_a_real_client() {
    let registry = Registry::start(23755, "");
    registry.push("redis", "library/redis:latest", "--dest-tls-verify=false");
    let daemon = Daemon::start(program(), &["--registry-mirror", "http://127.0.0.1:23755"]);
    let output = daemon.docker(&["run", "--name=redis", "-d", "-p", "1234:6379", "redis"]);
    output.ok();
    assert!(
        output
            .stderr
            .contains("Unable to find image 'redis:latest' locally"),
        "{}",
        output.stderr
    );
    assert!(
        output
            .stderr
            .contains("Status: Downloaded newer image for redis:latest"),
        "{}",
        output.stderr
    );
    let ping = || run(Command::new("redis-cli").args(["-p", "1234", "ping"]), b"");
    until("redis answers", || {
        (ping().stdout.trim() == "PONG").then_some(())
    });
    sh("redis-cli -p 1234 set berth afloat");
    assert_eq!(sh("redis-cli -p 1234 get berth"), "afloat");
    let processes = daemon.docker(&["top", "redis"]);
    assert!(
        processes.ok().contains("redis-server"),
        "{}",
        processes.stdout
    );
}

#[test]
fn nginx_serves_from_an_image_pulled_by_digest() {
    let registry = Registry::start(23756, "");
    registry.push("nginx", "web/nginx:1", "--dest-tls-verify=false");
    let daemon = Daemon::start(program(), &[]);
    let reference = format!("{}/web/nginx", registry.host);
    let digest = sh(&format!(
        "skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{reference}:1"
    ));
    let by_digest = format!("{reference}@{digest}");
    let output = daemon.berth(&["pull", &by_digest]);
    assert!(
        output.ok().contains(&format!("Digest: {digest}")),
        "{}",
        output.stdout
    );
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "web",
            "-p",
            "127.0.0.1:28081:80",
            &by_digest,
        ])
        .ok();
    let page = until("nginx answers", || {
        let output = run(
            Command::new("curl").args(["-s", "-m", "2", "http://127.0.0.1:28081/"]),
            b"",
        );
        (output.code == 0).then_some(output.stdout)
    });
    assert!(page.contains("Welcome to nginx!"), "{page}");
    // SIGQUIT, which the image asks for, ends nginx in order.
    daemon.docker(&["stop", "web"]).ok();
    assert_eq!(daemon.docker(&["wait", "web"]).ok(), "0");
    assert_eq!(
        daemon
            .docker(&["images", "--digests", "--format", "{{.Digest}}"])
            .ok(),
        digest
    );
}

#[test]
fn sighup_brings_new_mirrors_into_force() {
    let registry = Registry::start(23760, "");
    registry.push("busybox", "library/box:1", "--dest-tls-verify=false");
    let path = registry.directory.join("daemon.json");
    std::fs::write(&path, "{}").unwrap();
    let daemon = Daemon::start(program(), &["--config-file", path.to_str().unwrap()]);
    std::fs::write(&path, r#"{"registry-mirrors": ["http://127.0.0.1:23760"]}"#).unwrap();
    daemon.tell(rustix::process::Signal::HUP);
    until("the mirror is shown", || {
        let shown = daemon.docker(&["info", "-f", "{{.RegistryConfig.Mirrors}}"]);
        shown.ok().contains("127.0.0.1:23760").then_some(())
    });
    daemon.docker(&["pull", "box:1"]).ok();
    assert_eq!(
        daemon.docker(&["run", "--rm", "box:1", "echo", "x"]).ok(),
        "x"
    );
}

#[test]
fn a_second_pull_says_that_it_is_up_to_date() {
    let registry = Registry::start(23757, "");
    registry.push("busybox", "box:1", "--dest-tls-verify=false");
    let daemon = Daemon::start(program(), &[]);
    let name = format!("{}/box:1", registry.host);
    for client in [Daemon::docker, Daemon::berth] {
        let first = client(&daemon, &["pull", &name]);
        assert!(
            first
                .ok()
                .contains(&format!("Status: Downloaded newer image for {name}")),
            "{}",
            first.stdout
        );
        let again = client(&daemon, &["pull", &name]);
        assert!(
            again
                .ok()
                .contains(&format!("Status: Image is up to date for {name}")),
            "{}",
            again.stdout
        );
        assert_eq!(client(&daemon, &["pull", "-q", &name]).ok(), name);
        daemon.docker(&["rmi", &name]).ok();
    }
}

#[test]
fn tls_and_a_password_are_used() {
    let certs = std::env::temp_dir().join(format!("berth-tls-{}", std::process::id()));
    sh(&format!(
        "mkdir -p {c}/trust; cd {c}; openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca 2>/dev/null
         openssl req -newkey rsa:2048 -nodes -keyout key.pem -out r.csr -subj /CN=localhost 2>/dev/null
         printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' >ext; openssl x509 -req -in r.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem 2>/dev/null
         python3 -c 'import crypt;print(\"user:\"+crypt.crypt(\"secret\",crypt.mksalt(crypt.METHOD_BLOWFISH)))' >htpasswd
         cp ca.crt trust/",
        c = certs.display()
    ));
    let extra = format!(
        "  tls:\n    certificate: {c}/cert.pem\n    key: {c}/key.pem\nauth:\n  htpasswd:\n    realm: test\n    path: {c}/htpasswd\n",
        c = certs.display()
    );
    let registry = Registry::start(23758, &extra);
    registry.push(
        "busybox",
        "private/box:1",
        &format!(
            "--dest-cert-dir {}/trust --dest-creds user:secret",
            certs.display()
        ),
    );
    let daemon = Daemon::start(program(), &[]);
    let name = "localhost:23758/private/box:1";
    let trusted = std::path::PathBuf::from("/etc/berth/certs.d/localhost:23758");
    std::fs::create_dir_all(&trusted).unwrap();
    std::fs::copy(certs.join("ca.crt"), trusted.join("ca.crt")).unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        daemon
            .docker(&["pull", name])
            .fails(1, "no basic auth credentials");
        daemon
            .docker_with(
                &["login", "-u", "user", "--password-stdin", "localhost:23758"],
                b"wrong",
            )
            .fails(1, "failed with status: 401 Unauthorized");
        daemon
            .docker_with(
                &["login", "-u", "user", "--password-stdin", "localhost:23758"],
                b"secret",
            )
            .ok();
        daemon.docker(&["pull", name]).ok();
        daemon.docker(&["rmi", name]).ok();
        // Our client reads the same credentials.
        daemon.berth(&["pull", name]).ok();
    }));
    std::fs::remove_dir_all(&trusted).unwrap();
    // Those that were there before stay.
    sh("rmdir --ignore-fail-on-non-empty -p /etc/berth/certs.d");
    std::fs::remove_dir_all(&certs).unwrap();
    outcome.unwrap();
}

#[test]
fn what_the_registry_does_not_have_is_told_in_dockers_words() {
    let registry = Registry::start(23759, "");
    registry.push("busybox", "box:1", "--dest-tls-verify=false");
    let daemon = Daemon::start(program(), &[]);
    for client in [Daemon::docker, Daemon::berth] {
        let missing = format!("{}/box:2", registry.host);
        client(&daemon, &["pull", &missing]).fails(1, "manifest unknown");
        client(&daemon, &["run", "--rm", &missing]).fails(125, "manifest unknown");
        client(&daemon, &["pull", "127.0.0.1:1/box"]).fails(1, "connection refused");
        client(&daemon, &["pull", "Bad/Name"]).fails(1, "invalid reference format");
    }
    assert_eq!(daemon.docker(&["images", "-aq"]).ok(), "");
}
