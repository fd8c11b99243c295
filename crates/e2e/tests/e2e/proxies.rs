//! Pulls as they are in companies: registries behind a proxy, name servers that may be dead.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_testkit::{Certificates, Daemon, image, run, sh, until};

use crate::program;

/// How long a pull may take with a name server that never answers: docker's users wait 5 s for
/// each of its two tries.
const PATIENCE: Duration = Duration::from_secs(9);

/// Where the registry is: the other side's own address, to which we have no route.
const BEYOND: &str = "192.0.2.10";
/// On the wire: the other side, and an address there that takes packets and never answers.
const OTHER: &str = "10.213.77.1";
const DEAD: &str = "10.213.77.66";
const REGISTRY_PORT: u16 = 5443;
const PROXY_PORT: u16 = 8888;

/// Two network namespaces with a wire. On the far one: Debian's registry by TLS, tinyproxy with a
/// password, and dnsmasq, which alone knows the registry's names.
struct Company {
    near: String,
    far: String,
    directory: PathBuf,
    certificates: Certificates,
    /// The registry's name by the wire's own address, and by the one beyond it.
    names: [String; 2],
    servers: Vec<Child>,
}

impl Company {
    fn new(number: u8) -> Self {
        let name = format!("berth-co{}-{number}", std::process::id());
        let (near, far) = (format!("{name}n"), format!("{name}f"));
        let directory = std::env::temp_dir().join(&name);
        let names = ["registry", "beyond"].map(|host| format!("{host}.{name}.corp"));
        let alternatives = format!("DNS:{},DNS:{},IP:{BEYOND}", names[0], names[1]);
        let certificates = Certificates::make(directory.join("certs"), &alternatives);
        sh(&format!(
            "for n in {near} {far}; do ip netns add $n; ip -n $n link set lo up; done
             ip -n {near} link add wire type veth peer name wire netns {far}
             ip -n {near} addr add 10.213.77.2/24 dev wire; ip -n {near} link set wire up
             ip -n {far} addr add {OTHER}/24 dev wire; ip -n {far} link set wire up
             ip -n {far} addr add {DEAD}/24 dev wire; ip -n {far} addr add {BEYOND}/32 dev lo
             ip netns exec {far} nft 'add table ip t; add chain ip t c {{ type filter hook input priority 0; }}
                 add rule ip t c ip daddr {DEAD} drop'"
        ));
        let mut company = Self {
            near,
            far,
            directory,
            certificates,
            names,
            servers: Vec::new(),
        };
        company.serve();
        company
    }

    fn serve(&mut self) {
        let d = self.directory.display().to_string();
        self.write(
            "registry.yml",
            &format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {d}/data\nhttp:\n  addr: :{REGISTRY_PORT}\n  tls:\n    certificate: {}\n    key: {}\n",
                self.certificates.certificate(),
                self.certificates.key()
            ),
        );
        self.write(
            "tinyproxy.conf",
            &format!(
                "Port {PROXY_PORT}\nListen {OTHER}\nLogLevel Connect\nLogFile \"{d}/proxy.log\"\nBasicAuth user pass\nConnectPort {REGISTRY_PORT}\n"
            ),
        );
        self.write("resolv.conf", &format!("nameserver {OTHER}\n"));
        let registry = format!("docker-registry serve {d}/registry.yml");
        self.spawn(&registry);
        self.spawn(&format!("exec tinyproxy -d -c {d}/tinyproxy.conf"));
        self.spawn(&format!(
            "exec dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --pid-file= --no-resolv --no-hosts --local=/corp/ --bind-interfaces \
             --listen-address={OTHER} --address=/{}/{OTHER} --address=/{}/{BEYOND}",
            self.names[0], self.names[1]
        ));
        let push = format!(
            "skopeo copy -q --dest-cert-dir {}/trust oci:{}:busybox docker://{BEYOND}:{REGISTRY_PORT}/box:1",
            self.certificates.directory().display(),
            image::layout().display(),
        );
        sh(&format!(
            "cd {}; mkdir trust; cp ca.pem trust/ca.crt",
            self.certificates.directory().display()
        ));
        until("the registry takes the image", || {
            (self.on_far(&push).code == 0).then_some(())
        });
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.join(name), text).unwrap();
    }

    /// Runs a server on the far side, which resolves names by its own dnsmasq.
    fn spawn(&mut self, line: &str) {
        let child = self
            .far_command(line)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.servers.push(child.unwrap());
    }

    fn far_command(&self, line: &str) -> Command {
        let mut words = entering(&self.far, &self.directory.join("resolv.conf"));
        words.extend(["bash".to_owned(), "-ec".to_owned(), line.to_owned()]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    fn on_far(&self, line: &str) -> berth_testkit::Output {
        run(&mut self.far_command(line), b"")
    }

    /// A daemon on the near side with these name servers and this environment.
    fn daemon(&self, name_servers: &[&str], variables: &[String], flags: &[&str]) -> Daemon {
        let path = self.directory.join("near-resolv.conf");
        let lines = name_servers.iter().map(|ip| format!("nameserver {ip}\n"));
        std::fs::write(&path, lines.collect::<String>()).unwrap();
        let mut under = entering(&self.near, &path);
        under.push("env".to_owned());
        under.extend_from_slice(variables);
        let under: Vec<&str> = under.iter().map(String::as_str).collect();
        let flags: Vec<&str> = [&["--bridge", "none"], flags].concat();
        Daemon::start_under(&under, program(), &flags)
    }

    /// The daemons trust this registry while the guard lives.
    fn trusted(&self, host: &str) -> Trusted {
        let directory = PathBuf::from(format!("/etc/berth/certs.d/{host}:{REGISTRY_PORT}"));
        // Another test that ends may take the empty directories above away meanwhile.
        until("the authority is trusted", || {
            std::fs::create_dir_all(&directory).ok()?;
            std::fs::copy(self.certificates.authority(), directory.join("ca.crt")).ok()
        });
        Trusted(directory)
    }

    fn proxy_log(&self) -> String {
        std::fs::read_to_string(self.directory.join("proxy.log")).unwrap_or_default()
    }
}

struct Trusted(PathBuf);

impl Drop for Trusted {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
        // Those that were there before stay.
        sh("rmdir --ignore-fail-on-non-empty -p /etc/berth/certs.d");
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        for server in &mut self.servers {
            server.kill().unwrap();
            server.wait().unwrap();
        }
        sh(&format!(
            "ip netns del {}; ip netns del {}",
            self.near, self.far
        ));
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// The words that enter a network namespace with a resolv.conf of one's own.
fn entering(namespace: &str, resolv_conf: &Path) -> Vec<String> {
    let mount = format!(
        "mount --bind {} /etc/resolv.conf; exec \"$@\"",
        resolv_conf.display()
    );
    let net = format!("--net=/run/netns/{namespace}");
    [
        "nsenter", &net, "--", "unshare", "--mount", "sh", "-ec", &mount, "sh",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn proxy(password: &str) -> String {
    format!("http://user:{password}@{OTHER}:{PROXY_PORT}")
}

#[test]
fn a_registry_behind_a_proxy_is_pulled_from_through_a_tunnel() {
    let company = Company::new(1);
    let host = &company.names[1];
    let name = format!("{host}:{REGISTRY_PORT}/box:1");
    let _trusted = company.trusted(host);
    // By the environment. Only the proxy can resolve the name: our name server is dead.
    let variables = [format!("HTTPS_PROXY={}", proxy("p%61ss"))];
    let daemon = company.daemon(&[DEAD], &variables, &[]);
    let began = Instant::now();
    daemon.docker(&["pull", &name]).ok();
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    let log = company.proxy_log();
    assert!(
        log.contains(&format!("CONNECT {host}:{REGISTRY_PORT}")),
        "{log}"
    );
    // The password is nobody's business.
    let shown = daemon.docker(&["info", "-f", "{{.HTTPSProxy}}"]);
    assert_eq!(
        shown.ok(),
        format!("http://xxxxx:xxxxx@{OTHER}:{PROXY_PORT}")
    );
    drop(daemon);

    // By a flag, without a password and with a wrong one.
    for (proxy, words) in [
        (
            format!("http://{OTHER}:{PROXY_PORT}"),
            "Proxy Authentication Required",
        ),
        (proxy("wrong"), "Unauthorized"),
    ] {
        let flag = format!("--https-proxy={proxy}");
        let daemon = company.daemon(&[OTHER], &[], &[&flag]);
        let refused = daemon.docker(&["pull", &name]);
        refused.fails(1, words);
        assert!(!refused.stderr.contains("wrong"), "{}", refused.stderr);
    }
}

#[test]
fn no_proxy_names_what_is_reached_directly() {
    let company = Company::new(2);
    let host = &company.names[0];
    let name = format!("{host}:{REGISTRY_PORT}/box:1");
    let _trusted = company.trusted(host);
    let pull = |exceptions: &str| {
        let variables = [
            format!("HTTPS_PROXY={}", proxy("p%61ss")),
            format!("NO_PROXY={exceptions}"),
        ];
        let daemon = company.daemon(&[OTHER], &variables, &[]);
        daemon.berth(&["pull", "-q", &name]).ok();
    };
    let tunnel = format!("CONNECT {host}:{REGISTRY_PORT}");
    pull("elsewhere.org,.corp");
    assert!(
        !company.proxy_log().contains(&tunnel),
        "{}",
        company.proxy_log()
    );
    pull("elsewhere.org");
    assert!(
        company.proxy_log().contains(&tunnel),
        "{}",
        company.proxy_log()
    );
}

#[test]
fn a_dead_name_server_does_not_hang_a_pull() {
    let company = Company::new(3);
    let host = &company.names[0];
    let name = format!("{host}:{REGISTRY_PORT}/box:1");
    let _trusted = company.trusted(host);
    for servers in [&[OTHER][..], &[DEAD, OTHER], &[OTHER, DEAD]] {
        let daemon = company.daemon(servers, &[], &[]);
        let began = Instant::now();
        daemon.docker(&["pull", "-q", &name]).ok();
        assert!(
            began.elapsed() < PATIENCE,
            "{servers:?}: {:?}",
            began.elapsed()
        );
        let unknown = format!("nonesuch.corp:{REGISTRY_PORT}/box:1");
        let began = Instant::now();
        daemon.docker(&["pull", &unknown]).fails(1, "no such host");
        assert!(
            began.elapsed() < PATIENCE,
            "{servers:?}: {:?}",
            began.elapsed()
        );
    }
    // With none alive it is told, in the time that docker takes.
    let daemon = company.daemon(&[DEAD], &[], &[]);
    let began = Instant::now();
    daemon
        .docker(&["pull", "-q", &name])
        .fails(1, &format!("lookup {host}"));
    assert!(began.elapsed() < 4 * PATIENCE, "{:?}", began.elapsed());
}
