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
        Self::parse(path, &bytes)
    }

    /// The configuration that a file at `path` says.
    pub fn parse(path: PathBuf, bytes: &[u8]) -> Result<Self, String> {
        match serde_json::from_slice(bytes) {
            Ok(fields) => Ok(Self { path, fields }),
            Err(error) => Err(format!(
                "Error parsing config file ({}): {error}",
                path.display()
            )),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
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

    /// The headers that every request to a daemon is to carry. Who we are is not theirs to say.
    pub fn http_headers(&self) -> Vec<(String, String)> {
        let headers = self.fields.get("HttpHeaders").and_then(Value::as_object);
        let each = headers.into_iter().flatten();
        each.filter(|(name, _)| !name.eq_ignore_ascii_case("user-agent"))
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect()
    }

    /// What `auths` has under a key, or else under one that means the same.
    pub fn auth_entry(&self, key: &str, means: impl Fn(&str) -> bool) -> Option<&Value> {
        let all = self.fields.get("auths")?.as_object()?;
        let same = || all.iter().find(|(known, _)| means(known));
        all.get(key).or_else(|| same().map(|(_, entry)| entry))
    }

    /// The name of the credential helper that is meant for one registry only.
    pub fn helper(&self, key: &str) -> Option<&str> {
        let name = self.fields.get("credHelpers")?.get(key)?.as_str()?;
        Some(name).filter(|name| !name.is_empty())
    }

    /// Sets or removes what `auths` has under a key; `false` if it was so already.
    pub fn set_auth(
        &mut self,
        key: &str,
        entry: Option<serde_json::Map<String, Value>>,
    ) -> std::io::Result<bool> {
        let auths = self.fields.get("auths").and_then(Value::as_object);
        let mut auths = auths.cloned().unwrap_or_default();
        let entry = entry.map(Value::Object);
        if auths.get(key) == entry.as_ref() {
            return Ok(false);
        }
        match entry {
            Some(entry) => auths.insert(key.to_owned(), entry),
            None => auths.remove(key),
        };
        self.fields.insert("auths".to_owned(), auths.into());
        self.save()?;
        Ok(true)
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
            private_dir(dir)?;
        }
        let mut out = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, format);
        serde::Serialize::serialize(&self.fields, &mut serializer)?;
        // A file that is a link to another stays one.
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let temporary = path.with_extension(format!("json.{}", std::process::id()));
        let mut file = private_file(&temporary)?;
        file.write_all(&out)?;
        std::fs::rename(&temporary, &path)
    }
}

/// A directory that only its owner can enter, for the same reason.
fn private_dir(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
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
