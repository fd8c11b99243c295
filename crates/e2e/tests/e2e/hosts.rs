//! Daemons on other hosts: through ssh to a real sshd, and by TLS, from the real client and ours.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use berth_testkit::{Certificates, Daemon, Output, image, run, sh, until};

use crate::{daemon, program};

type Client = fn(&Daemon) -> Command;

/// Our command line and the real one.
const CLIENTS: [Client; 2] = [ours, real];
/// Who makes a context, and who uses it.
const PAIRS: [(Client, Client); 2] = [(ours, real), (real, ours)];

fn ours(daemon: &Daemon) -> Command {
    client(daemon, daemon.program())
}

fn real(daemon: &Daemon) -> Command {
    client(daemon, &image::docker())
}

/// A client that is told about no daemon yet.
fn client(daemon: &Daemon, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("DOCKER_CONFIG", daemon.root.join("docker-config"));
    command
}

fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

/// An sshd on loopback that lets root in by a key of the test's own.
struct Sshd {
    child: Child,
    directory: PathBuf,
    port: u16,
    _privsep: Privsep,
}

/// The empty directory that every sshd of the machine locks its unprivileged part into. It goes
/// with the last that uses it, if it was not there before the first.
struct Privsep;

/// How many use it, and whether it is ours.
static PRIVSEP: Mutex<(usize, bool)> = Mutex::new((0, false));
const PRIVSEP_DIRECTORY: &str = "/run/sshd";

impl Privsep {
    fn take() -> Self {
        let mut users = PRIVSEP.lock().unwrap();
        if users.0 == 0 {
            users.1 = !Path::new(PRIVSEP_DIRECTORY).exists();
            std::fs::create_dir_all(PRIVSEP_DIRECTORY).unwrap();
        }
        users.0 += 1;
        Self
    }
}

impl Drop for Privsep {
    fn drop(&mut self) {
        let mut users = PRIVSEP.lock().unwrap();
        users.0 -= 1;
        if *users == (0, true) {
            std::fs::remove_dir(PRIVSEP_DIRECTORY).unwrap();
        }
    }
}

impl Sshd {
    /// `far_name` is what our binary is called on the far side.
    fn start(daemon: &Daemon, far_name: &str) -> Self {
        let directory = daemon.root.join(format!("ssh-{far_name}"));
        let port = free_port();
        let privsep = Privsep::take();
        sh(&format!(
            "mkdir -p {d}/near {d}/far; cd {d}
             ssh-keygen -q -t ed25519 -N '' -f host; ssh-keygen -q -t ed25519 -N '' -f key
             cp key.pub authorized; ln -s {program} far/{far_name}
             ln -s $(command -v sh) far/sh
             printf '[127.0.0.1]:{port} %s\\n' \"$(cut -d' ' -f1,2 host.pub)\" >known
             cat >sshd_config <<END
Port {port}
ListenAddress 127.0.0.1
HostKey {d}/host
AuthorizedKeysFile {d}/authorized
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
SetEnv PATH={d}/far DOCKER_HOST={host}
END
             cat >config <<END
Host far
  HostName 127.0.0.1
  Port {port}
Host *
  IdentityFile {d}/key
  IdentitiesOnly yes
  UserKnownHostsFile {d}/known
  GlobalKnownHostsFile /dev/null
END
             printf '#!/bin/sh\\nexec /usr/bin/ssh -F {d}/config \"$@\"\\n' >near/ssh; chmod 755 near/ssh",
            d = directory.display(),
            program = daemon.program().canonicalize().unwrap().display(),
            host = daemon.host(),
        ));
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(directory.join("sshd_config"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        until("sshd listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self {
            child,
            directory,
            port,
            _privsep: privsep,
        }
    }

    /// A client that finds the ssh program with the test's configuration.
    fn near(&self, client: Client, daemon: &Daemon) -> Command {
        let mut command = client(daemon);
        let path = std::env::var("PATH").unwrap();
        let near = self.directory.join("near");
        command.env("PATH", format!("{}:{path}", near.display()));
        command
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn containers_run_through_ssh() {
    let daemon = daemon();
    let sshd = Sshd::start(&daemon, "docker");
    for client in CLIENTS {
        let ssh = |host: &str, words: &[&str], input: &[u8]| -> Output {
            let mut command = sshd.near(client, &daemon);
            run(command.args(["-H", host]).args(words), input)
        };
        // The end of the input reaches the container, and its output and exit code come back.
        let words = ["run", "--rm", "-i", "busybox", "sh", "-c", "cat; exit 7"];
        let output = ssh("ssh://root@far", &words, b"through ssh");
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (7, "through ssh"),
            "{output:?}"
        );
        let by_port = format!("ssh://root@127.0.0.1:{}", sshd.port);
        assert_eq!(ssh(&by_port, &["ps", "-aq"], b"").ok(), "");
        let by_socket = format!("{by_port}{}", daemon.socket().display());
        assert_eq!(
            ssh(&by_socket, &["images", "-q"], b"").ok().lines().count(),
            1
        );
        // What ssh, or the far side, says is told.
        let closed = format!("ssh://root@127.0.0.1:{}", free_port());
        ssh(&closed, &["ps"], b"")
            .fails(1, "error during connect: ")
            .fails(
                1,
                "has exited with exit status 255, make sure the URL is valid",
            )
            .fails(1, "Connection refused");
        ssh(&format!("{by_port}/no/such.sock"), &["ps"], b"").fails(1, "/no/such.sock");
        ssh("ssh://me:word@far", &["ps"], b"").fails(1, "plain-text password is not supported");
    }
}

#[test]
fn our_command_line_finds_berth_behind_ssh_where_there_is_no_docker() {
    let daemon = daemon();
    let sshd = Sshd::start(&daemon, "berth");
    let mut command = sshd.near(ours, &daemon);
    command.args([
        "-H",
        "ssh://root@far",
        "run",
        "--rm",
        "busybox",
        "echo",
        "hi",
    ]);
    assert_eq!(run(&mut command, b"").ok(), "hi");
}

#[test]
fn contexts_lead_through_ssh_whichever_client_made_them() {
    let daemon = daemon();
    let sshd = Sshd::start(&daemon, "docker");
    for (number, (maker, user)) in PAIRS.into_iter().enumerate() {
        let name = format!("far{number}");
        let mut make = sshd.near(maker, &daemon);
        make.args([
            "context",
            "create",
            &name,
            "--docker",
            "host=ssh://root@far",
        ]);
        run(&mut make, b"").ok();
        let mut list = sshd.near(user, &daemon);
        list.args(["--context", &name, "run", "--rm", "busybox", "echo", "x"]);
        assert_eq!(run(&mut list, b"").ok(), "x");
    }
}

/// A daemon that listens by TLS too, and its address.
fn tls_daemon(directory: &Path, flags: &[&str]) -> (Daemon, String) {
    let address = format!("tcp://127.0.0.1:{}", free_port());
    let cert = directory.join("cert.pem").display().to_string();
    let key = directory.join("key.pem").display().to_string();
    let mut all = vec!["--host", &address, "--tlscert", &cert, "--tlskey", &key];
    all.extend(flags);
    let daemon = Daemon::start(program(), &all);
    daemon.load("busybox");
    (daemon, address)
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("berth-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn tls_verifies_both_sides() {
    let scratch = Scratch::new("tls-hosts");
    let certs = Certificates::make(scratch.0.join("good"), "DNS:localhost,IP:127.0.0.1");
    let strangers = Certificates::make(scratch.0.join("other"), "DNS:elsewhere");
    let (ca, cert, key) = (certs.authority(), certs.certificate(), certs.key());
    let (daemon, address) = tls_daemon(certs.directory(), &["--tlsverify", "--tlscacert", &ca]);
    for client in CLIENTS {
        let ask = |flags: &[&str], words: &[&str], input: &[u8]| -> Output {
            run(
                client(&daemon)
                    .args(["-H", &address])
                    .args(flags)
                    .args(words),
                input,
            )
        };
        let all = [
            "--tlsverify",
            "--tlscacert",
            &ca,
            "--tlscert",
            &cert,
            "--tlskey",
            &key,
        ];
        let words = ["run", "--rm", "-i", "busybox", "sh", "-c", "cat; exit 7"];
        let output = ask(&all, &words, b"by TLS");
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (7, "by TLS"),
            "{output:?}"
        );
        // By the environment, and with the name that the certificate has.
        let mut command = client(&daemon);
        command
            .env("DOCKER_HOST", address.replace("127.0.0.1", "localhost"))
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", certs.directory())
            .args(["images", "-q"]);
        assert_eq!(run(&mut command, b"").ok().lines().count(), 1);
        // We believe anyone, but are known.
        let blind = [
            "--tls",
            "--tlscacert",
            &strangers.authority(),
            "--tlscert",
            &cert,
            "--tlskey",
            &key,
        ];
        assert_eq!(ask(&blind, &["ps", "-q"], b"").ok(), "");
        // A client without a certificate, one with a stranger's, and a stranger as the server.
        ask(&["--tlsverify", "--tlscacert", &ca], &["ps"], b"").fails(1, "ertificate");
        let (other, other_key) = (strangers.certificate(), strangers.key());
        let stranger = [
            "--tlsverify",
            "--tlscacert",
            &ca,
            "--tlscert",
            &other,
            "--tlskey",
            &other_key,
        ];
        ask(&stranger, &["ps"], b"").fails(1, "ertificate");
        let other_ca = strangers.authority();
        let doubtful = [
            "--tlsverify",
            "--tlscacert",
            &other_ca,
            "--tlscert",
            &cert,
            "--tlskey",
            &key,
        ];
        ask(&doubtful, &["ps"], b"").fails(1, "ertificate");
        // Without TLS at all, and with no file to believe.
        ask(&[], &["ps"], b"").fails(1, "Client sent an HTTP request to an HTTPS server.");
        ask(&["--tlsverify", "--tlscacert", "/no/ca.pem"], &["ps"], b"")
            .fails(1, "open /no/ca.pem: no such file or directory");
    }
}

#[test]
fn contexts_hold_certificates_whichever_client_made_them() {
    let scratch = Scratch::new("tls-contexts");
    let certs = Certificates::make(scratch.0.join("c"), "IP:127.0.0.1");
    let ca = certs.authority();
    let (daemon, address) = tls_daemon(certs.directory(), &["--tlsverify", "--tlscacert", &ca]);
    let endpoint = format!(
        "host={address},ca={ca},cert={},key={}",
        certs.certificate(),
        certs.key()
    );
    for (number, (maker, user)) in PAIRS.into_iter().enumerate() {
        let name = format!("secure{number}");
        run(
            maker(&daemon).args(["context", "create", &name, "--docker", &endpoint]),
            b"",
        )
        .ok();
        let words = ["--context", &name, "run", "--rm", "busybox", "echo", "x"];
        assert_eq!(run(user(&daemon).args(words), b"").ok(), "x");
    }
}

#[test]
fn tls_without_verifying_clients_takes_anyone_who_asks_by_tls() {
    let scratch = Scratch::new("tls-open");
    let certs = Certificates::make(scratch.0.join("c"), "IP:127.0.0.1");
    let ca = certs.authority();
    let (daemon, address) = tls_daemon(certs.directory(), &["--tlsverify=false"]);
    for client in CLIENTS {
        let words = [
            "-H",
            &address,
            "--tlsverify",
            "--tlscacert",
            &ca,
            "images",
            "-q",
        ];
        assert_eq!(
            run(client(&daemon).args(words), b"").ok().lines().count(),
            1
        );
    }
    let refused = |flags: &[&str]| {
        let mut command = daemon.command();
        run(command.args(flags), b"").stderr
    };
    let other = daemon.root.join("other").display().to_string();
    let missing = refused(&[
        "--data-root",
        &other,
        "--tlsverify",
        "--tlscacert",
        "/no/ca.pem",
    ]);
    assert!(missing.contains("invalid TLS configuration"), "{missing}");
    assert!(missing.contains("/no/ca.pem"), "{missing}");
    let crossed = refused(&[
        "--tls",
        "--tlsverify=false",
        "--tlscert",
        &ca,
        "--tlskey",
        &certs.key(),
    ]);
    assert!(crossed.contains("invalid TLS configuration"), "{crossed}");
}
