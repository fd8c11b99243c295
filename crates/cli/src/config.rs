//! `config.json` of docker's clients: read leniently, written without losing what we do not know.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

#[derive(Debug, Clone, Default)]
pub struct Config {
    path: PathBuf,
    fields: serde_json::Map<String, Value>,
}

impl Config {
    /// A file that is not there is an empty one.
    pub fn load(path: &Path) -> Result<Self, String> {
        let path = path.to_owned();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self {
                    path,
                    ..Self::default()
                });
            }
            Err(error) => {
                return Err(format!(
                    "Error loading config file: {}: {error}",
                    path.display()
                ));
            }
        };
        match serde_json::from_slice(&bytes) {
            Ok(fields) => Ok(Self { path, fields }),
            Err(error) => Err(format!(
                "Error parsing config file ({}): {error}",
                path.display()
            )),
        }
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.fields
            .get(key)?
            .as_str()
            .filter(|text| !text.is_empty())
    }

    pub fn current_context(&self) -> Option<String> {
        self.text("currentContext").map(str::to_owned)
    }

    /// The proxy variables that containers get, for this daemon or for all.
    pub fn proxies(&self, host: &str) -> BTreeMap<String, String> {
        const KEYS: &[(&str, &str)] = &[
            ("httpProxy", "HTTP_PROXY"),
            ("httpsProxy", "HTTPS_PROXY"),
            ("noProxy", "NO_PROXY"),
            ("ftpProxy", "FTP_PROXY"),
            ("allProxy", "ALL_PROXY"),
        ];
        let all = self.fields.get("proxies");
        let proxies = all.and_then(|all| all.get(host).or_else(|| all.get("default")));
        let mut variables = BTreeMap::new();
        for (key, name) in KEYS {
            let value = proxies
                .and_then(|proxies| proxies.get(key))
                .and_then(Value::as_str);
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                variables.insert((*name).to_owned(), value.to_owned());
                variables.insert(name.to_lowercase(), value.to_owned());
            }
        }
        variables
    }

    /// The base64 of `user:password` for a registry.
    pub fn auth(&self, registry: &str) -> Option<&str> {
        self.fields
            .get("auths")?
            .get(registry)?
            .get("auth")?
            .as_str()
    }

    /// Sets or removes a text and writes the file at once, by renaming a new one over it.
    pub fn set(&mut self, key: &str, value: Option<&str>) -> std::io::Result<()> {
        match value {
            Some(value) => self.fields.insert(key.to_owned(), value.into()),
            None => self.fields.remove(key),
        };
        self.save()
    }

    fn save(&self) -> std::io::Result<()> {
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut out = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, format);
        serde::Serialize::serialize(&self.fields, &mut serializer)?;
        let temporary = self
            .path
            .with_extension(format!("json.{}", std::process::id()));
        let mut file = private_file(&temporary)?;
        file.write_all(&out)?;
        std::fs::rename(&temporary, &self.path)
    }
}

/// A new file that only its owner can read, for it may hold credentials.
pub fn private_file(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}
