//! Debian's docker-registry, filled by skopeo: plain, with TLS, with basic authentication, and
//! with tokens. What the packages provide is required where the tests run.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use berth_image::distribution::Credentials;
use berth_oci::Platform;
use http::StatusCode;
use serde_json::json;

use crate::Host;
use crate::built::{Built, image, image_for, index, noise, write_layout};
use crate::fake::{Fake, json as json_answer};

/// `ada` with the password `secret`, hashed by bcrypt.
const HTPASSWD: &str = "ada:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A running registry. Killed when dropped.
struct Registry {
    child: Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Registry {
    /// Starts it on a free port; `more` goes into its configuration below `http`, and after it.
    fn start(directory: tempfile::TempDir, http: &str, more: &str) -> Self {
        let root = directory.path().join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
             http:\n  addr: 0.0.0.0:0\n{http}{more}",
            root.display()
        );
        let path = directory.path().join("config.yml");
        std::fs::write(&path, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("the registry listens").unwrap();
            let port = line
                .split_once("listening on ")
                .and_then(|(_, rest)| rest.split(['"', ',']).next()?.rsplit(':').next())
                .and_then(|port| port.parse().ok());
            if let Some(port) = port {
                break port;
            }
        };
        // It must not block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            directory,
            port,
        }
    }

    /// Pushes by skopeo.
    fn push(&self, name: &str, top: &crate::built::Blob, images: &[&Built], options: &[&str]) {
        let layout = self
            .directory
            .path()
            .join("layout")
            .join(name.replace(['/', ':'], "-"));
        write_layout(&layout, top, images);
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--all", "--preserve-digests"])
            .arg("--dest-tls-verify=false")
            .args(options)
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://127.0.0.1:{}/{name}", self.port))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
    }
}

fn password() -> Credentials {
    Credentials::Password {
        user: "ada".to_owned(),
        password: "secret".to_owned(),
    }
}

/// Makes an authority and a certificate for `0.0.0.0`: an address of this machine that is not in
/// the loopback network, where any registry would do without verified TLS.
fn certificates(directory: &Path) -> PathBuf {
    let script = r#"
        set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -subj '/CN=test authority' -keyout ca.key -out ca.crt
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=registry' \
            -keyout server.key -out server.csr
        printf 'subjectAltName=IP:0.0.0.0,IP:127.0.0.1,DNS:registry.test\n' > server.ext
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
            -extfile server.ext -out server.crt
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=client' \
            -keyout client.key -out client.csr
        openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
            -out client.cert
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -subj '/CN=self' -addext 'subjectAltName=IP:0.0.0.0' -keyout self.key -out self.crt
    "#;
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    directory.to_owned()
}

/// The directory of a registry's certificates on a host.
fn certs_of(host: &Host, port: u16) -> PathBuf {
    let directory = host
        .directory
        .path()
        .join(format!("certs.d/0.0.0.0:{port}"));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn what_skopeo_pushed_is_pulled_with_the_same_digests() {
    let registry = Registry::start(tempfile::tempdir().unwrap(), "", "");
    let text = noise(3_000_000);
    let built = image(&[("big", &text), ("b", "x"), ("c", "y"), ("d", "z")]);
    registry.push("some/app:v1", &built.manifest, &[&built], &[]);
    let host = Host::new();
    let name = format!("127.0.0.1:{}/some/app:v1", registry.port);
    let pulled = host.pull(&name).await.unwrap();
    assert_eq!(pulled.digest, built.manifest.descriptor.digest);
    assert_eq!(host.file(&name, "big"), Some(text));
    assert!(!host.pull(&name).await.unwrap().is_newer);
    let (unknown, nosuch) = (
        format!("127.0.0.1:{}/some/app:nosuch", registry.port),
        format!("127.0.0.1:{}/nosuch", registry.port),
    );
    assert_eq!(
        host.pull(&unknown).await.unwrap_err().to_string(),
        format!("manifest for {unknown} not found: manifest unknown: manifest unknown")
    );
    assert_eq!(
        host.pull(&nosuch).await.unwrap_err().to_string(),
        format!("manifest for {nosuch}:latest not found: manifest unknown: manifest unknown")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_skopeo_pushed_gives_each_platform_its_image() {
    let registry = Registry::start(tempfile::tempdir().unwrap(), "", "");
    let platforms = ["linux/amd64", "linux/arm64", "linux/arm/v7"];
    let images = platforms.map(|platform| {
        let platform: Platform = platform.parse().unwrap();
        image_for(&platform, &[("platform", &platform.to_string())])
    });
    let entries: Vec<(&str, &Built)> = platforms.into_iter().zip(&images).collect();
    let top = index(&entries);
    registry.push("app", &top, &images.each_ref(), &[]);
    let name = format!("127.0.0.1:{}/app", registry.port);
    for platform in platforms {
        let host = Host::new();
        let platform: Platform = platform.parse().unwrap();
        let request = berth_image::distribution::Request {
            reference: name.parse().unwrap(),
            platform: Some(platform.clone()),
            credentials: Credentials::Anonymous,
        };
        let pulled = host.pull_request(&request).await.unwrap();
        assert_eq!(pulled.digest, top.descriptor.digest);
        let image = host.images.resolve(&name, Some(&platform)).unwrap();
        let text = std::fs::read_to_string(image.layers[0].join("platform")).unwrap();
        assert_eq!(text, platform.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_authentication_lets_in_who_has_the_password() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    std::fs::write(&users, HTPASSWD).unwrap();
    let more = format!(
        "auth:\n  htpasswd: {{realm: test, path: {}}}\n",
        users.display()
    );
    let registry = Registry::start(directory, "", &more);
    let built = image(&[("a", "x")]);
    let credentials = ["--dest-creds", "ada:secret"];
    registry.push("app", &built.manifest, &[&built], &credentials);
    let name = format!("127.0.0.1:{}/app", registry.port);
    Host::new().pull_as(&name, password()).await.unwrap();
    assert_eq!(
        Host::new().refused(&name).await,
        format!(
            "Head \"http://127.0.0.1:{}/v2/app/manifests/latest\": no basic auth credentials",
            registry.port
        )
    );
    let wrong = Credentials::Password {
        user: "ada".to_owned(),
        password: "guess".to_owned(),
    };
    let error = Host::new().pull_as(&name, wrong).await.unwrap_err();
    assert_eq!(error.to_string(), "unauthorized: authentication required");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_against_the_hosts_and_the_registrys_authorities() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = certificates(directory.path());
    let pair = |name: &str| {
        format!(
            "  tls: {{certificate: {0}/{name}.crt, key: {0}/{name}.key}}\n",
            certificates.display()
        )
    };
    let registry = Registry::start(directory, &pair("server"), "");
    let built = image(&[("a", "x")]);
    registry.push("app", &built.manifest, &[&built], &[]);
    let port = registry.port;
    let name = format!("0.0.0.0:{port}/app");
    assert_eq!(
        Host::new().refused(&name).await,
        format!(
            "Get \"https://0.0.0.0:{port}/v2/\": tls: failed to verify certificate: x509: \
             certificate signed by unknown authority"
        )
    );
    let host = Host::new();
    std::fs::copy(
        certificates.join("ca.crt"),
        certs_of(&host, port).join("ca.crt"),
    )
    .unwrap();
    host.pull(&name).await.unwrap();
    // On this machine, and where the administrator says so, nothing is verified.
    Host::new()
        .pull(&format!("127.0.0.1:{port}/app"))
        .await
        .unwrap();
    let insecure = Host::with(|config| {
        config.registries.insecure = vec![format!("0.0.0.0:{port}").parse().unwrap()]
    });
    insecure.pull(&name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_is_taken_as_its_own_authority() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = certificates(directory.path());
    let tls = format!(
        "  tls: {{certificate: {0}/self.crt, key: {0}/self.key}}\n",
        certificates.display()
    );
    let registry = Registry::start(directory, &tls, "");
    let built = image(&[("a", "x")]);
    registry.push("app", &built.manifest, &[&built], &[]);
    let host = Host::new();
    let certs = certs_of(&host, registry.port);
    std::fs::copy(certificates.join("self.crt"), certs.join("ca.crt")).unwrap();
    host.pull(&format!("0.0.0.0:{}/app", registry.port))
        .await
        .unwrap();
    // But it speaks for its own name only.
    let hosts = host.directory.path().join("hosts");
    std::fs::write(&hosts, "0.0.0.0 other.test\n").unwrap();
    let other = Host::with(|config| config.names.hosts = hosts);
    let domain = format!("other.test:{}", registry.port);
    let certs = other.directory.path().join("certs.d").join(&domain);
    std::fs::create_dir_all(&certs).unwrap();
    std::fs::copy(certificates.join("self.crt"), certs.join("ca.crt")).unwrap();
    assert_eq!(
        other.refused(&format!("{domain}/app")).await,
        format!(
            "Get \"https://{domain}/v2/\": tls: failed to verify certificate: x509: certificate \
             is valid for 0.0.0.0, not other.test"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_to_registries_that_ask() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = certificates(directory.path());
    let tls = format!(
        "  tls:\n    certificate: {0}/server.crt\n    key: {0}/server.key\n    clientcas: [{0}/ca.crt]\n",
        certificates.display()
    );
    let registry = Registry::start(directory, &tls, "");
    let built = image(&[("a", "x")]);
    let shown = registry.directory.path().join("shown");
    std::fs::create_dir(&shown).unwrap();
    for name in ["ca.crt", "client.cert", "client.key"] {
        std::fs::copy(certificates.join(name), shown.join(name)).unwrap();
    }
    let option = format!("--dest-cert-dir={}", shown.display());
    registry.push("app", &built.manifest, &[&built], &[&option]);
    let name = format!("0.0.0.0:{}/app", registry.port);
    let host = Host::new();
    let certs = certs_of(&host, registry.port);
    std::fs::copy(certificates.join("ca.crt"), certs.join("ca.crt")).unwrap();
    let error = host.refused(&name).await;
    assert!(error.contains("remote error: tls: "), "{error}");
    std::fs::copy(certificates.join("client.cert"), certs.join("client.cert")).unwrap();
    assert_eq!(
        host.refused(&name).await,
        "missing key client.key for client certificate client.cert. CA certificates must use the \
         extension .crt"
    );
    std::fs::copy(certificates.join("client.key"), certs.join("client.key")).unwrap();
    host.pull(&name).await.unwrap();
}

/// Signs what a client may do, as the token specification of the distribution project has it:
/// ES256, with the certificate in the header that the registry trusts.
fn token(directory: &Path, scope: &str, now_s: u64) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let certificate = std::fs::read_to_string(directory.join("server.crt")).unwrap();
    let certificate: String = certificate
        .lines()
        .filter(|line| !line.starts_with("---"))
        .collect();
    let mut parts = scope.split(':');
    let (kind, name) = (parts.next().unwrap(), parts.next().unwrap());
    let actions: Vec<&str> = parts.next().unwrap().split(',').collect();
    let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [certificate]});
    let claims = json!({
        "iss": "test issuer", "sub": "ada", "aud": "the registry", "jti": "1",
        "iat": now_s, "nbf": now_s - 60, "exp": now_s + 600,
        "access": [{"type": kind, "name": name, "actions": actions}],
    });
    let text = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let message = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(message.path(), &text).unwrap();
    let output = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(directory.join("server.key"))
        .arg(message.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    format!("{text}.{}", encode(&fixed_width(&output.stdout)))
}

/// The two numbers of an ECDSA signature side by side, 32 bytes each, from their DER form.
fn fixed_width(der: &[u8]) -> Vec<u8> {
    let mut numbers = &der[2..];
    let mut out = Vec::new();
    for _ in 0..2 {
        let length = usize::from(numbers[1]);
        let number = &numbers[2..2 + length];
        let significant = &number[length.saturating_sub(32)..];
        out.resize(out.len() + 32 - significant.len(), 0);
        out.extend_from_slice(significant);
        numbers = &numbers[2 + length..];
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_takes_the_tokens_of_its_token_server() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = certificates(directory.path());
    let ada = format!("Basic {}", STANDARD.encode("ada:secret"));
    let tokens = {
        let certificates = certificates.clone();
        Fake::with(move |seen| {
            let uri: http::Uri = seen.path.parse().unwrap();
            let fields = uri.query().unwrap_or_default().split('&');
            let scope = fields
                .filter_map(|field| field.strip_prefix("scope="))
                .next();
            let scope = percent_encoding::percent_decode_str(scope.unwrap_or("a:b:none"));
            let scope = scope.decode_utf8().unwrap().into_owned();
            if seen.header("authorization") != ada {
                return Some(json_answer(StatusCode::UNAUTHORIZED, "{}"));
            }
            let now = std::time::SystemTime::now();
            let now_s = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            let token = token(&certificates, &scope, now_s);
            let answer = json!({"token": token, "expires_in": 600});
            Some(json_answer(StatusCode::OK, &answer.to_string()))
        })
        .await
    };
    let more = format!(
        "auth:\n  token: {{realm: 'http://{}/token', service: the registry, issuer: test issuer, \
         rootcertbundle: {}/ca.crt}}\n",
        tokens.address,
        certificates.display()
    );
    let registry = Registry::start(directory, "", &more);
    let built = image(&[("a", "x"), ("b", "y")]);
    let credentials = ["--dest-creds", "ada:secret"];
    tokio::task::block_in_place(|| {
        registry.push("some/app", &built.manifest, &[&built], &credentials)
    });
    let name = format!("127.0.0.1:{}/some/app", registry.port);
    let host = Host::new();
    let pulled = host.pull_as(&name, password()).await.unwrap();
    assert_eq!(pulled.digest, built.manifest.descriptor.digest);
    assert_eq!(
        Host::new().refused(&name).await,
        format!(
            "Head \"http://127.0.0.1:{}/v2/some/app/manifests/latest\": unauthorized: \
             authentication required",
            registry.port
        )
    );
}
