//! Contexts: named daemons, stored as docker's clients store them.
//!
//! `contexts/meta/<sha256 of the name>/meta.json` tells the address,
//! `contexts/tls/<sha256 of the name>/docker/` holds certificates.

use std::path::PathBuf;

use berth_docker_client::Tls;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::failure::Failure;

pub struct Store {
    root: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Context {
    pub name: String,
    #[serde(default)]
    pub metadata: serde_json::Map<String, Value>,
    #[serde(default)]
    pub endpoints: serde_json::Map<String, Value>,
}

impl Context {
    pub fn host(&self) -> String {
        let docker = self.endpoints.get("docker");
        let host = docker.and_then(|docker| docker.get("Host"));
        host.and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub fn description(&self) -> &str {
        let description = self.metadata.get("Description");
        description.and_then(Value::as_str).unwrap_or_default()
    }

    pub fn skip_verify(&self) -> bool {
        let docker = self.endpoints.get("docker");
        let skip = docker.and_then(|docker| docker.get("SkipTLSVerify"));
        skip.and_then(Value::as_bool).unwrap_or(false)
    }
}

impl Store {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn id(name: &str) -> String {
        let digest = Sha256::digest(name.as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn meta_dir(&self, name: &str) -> PathBuf {
        self.root.join("meta").join(Self::id(name))
    }

    pub fn tls_dir(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(Self::id(name))
    }

    pub fn load(&self, name: &str) -> Result<Context, Failure> {
        let path = self.meta_dir(name).join("meta.json");
        let bytes = std::fs::read(&path).map_err(|error| {
            let why = match error.kind() {
                std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                _ => error.to_string(),
            };
            Failure::new(format!(
                "context {name:?}: context not found: open {}: {why}",
                path.display()
            ))
        })?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new(format!("parsing {}: {error}", path.display())))
    }

    pub fn exists(&self, name: &str) -> bool {
        self.meta_dir(name).join("meta.json").exists()
    }

    /// All contexts, sorted by name.
    pub fn list(&self) -> Vec<Context> {
        let Ok(entries) = std::fs::read_dir(self.root.join("meta")) else {
            return Vec::new();
        };
        let mut contexts: Vec<Context> = entries
            .filter_map(|entry| {
                let bytes = std::fs::read(entry.ok()?.path().join("meta.json")).ok()?;
                serde_json::from_slice(&bytes).ok()
            })
            .collect();
        contexts.sort_by(|a, b| a.name.cmp(&b.name));
        contexts
    }

    pub fn save(&self, context: &Context) -> Result<(), Failure> {
        let dir = self.meta_dir(&context.name);
        std::fs::create_dir_all(&dir)?;
        let text = serde_json::to_vec(context).map_err(std::io::Error::from)?;
        std::fs::write(dir.join("meta.json"), text)?;
        Ok(())
    }

    pub fn remove(&self, name: &str) -> Result<(), Failure> {
        std::fs::remove_dir_all(self.meta_dir(name))?;
        match std::fs::remove_dir_all(self.tls_dir(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The certificates of a context; `None` if it has none and does verify.
    pub fn tls(&self, context: &Context) -> Option<Tls> {
        let dir = self.tls_dir(&context.name).join("docker");
        let file = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
        let tls = Tls {
            ca: file("ca.pem"),
            cert: file("cert.pem"),
            key: file("key.pem"),
            skip_verify: context.skip_verify(),
        };
        let wanted = tls.ca.is_some() || tls.cert.is_some() || tls.skip_verify;
        wanted.then_some(tls)
    }
}

/// Docker's rule for names.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let mut bytes = name.bytes();
    if name.is_empty() {
        return Err(Failure::new("context name cannot be empty"));
    }
    if name == crate::cli::DEFAULT_CONTEXT {
        return Err(Failure::new("\"default\" is a reserved context name"));
    }
    let starts_well = bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric());
    let goes_on_well = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte));
    if starts_well && goes_on_well && name.len() >= 2 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
    )))
}
