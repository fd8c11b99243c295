//! Who the user is to registries: `auths` of `config.json`, or the programs
//! `docker-credential-NAME` that `credsStore` and `credHelpers` name there.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use berth_docker::auth::AuthConfig;
use http::header::HeaderValue;
use serde_json::{Map, Value};

use crate::cli::{Cli, warn};
use crate::config::Config;
use crate::failure::Failure;

/// Docker Hub's key in the configuration file.
pub const HUB: &str = "https://index.docker.io/v1/";

/// The user name that stands for an identity token in helpers.
const TOKEN_USER: &str = "<token>";

/// What helpers say when they know nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The key for a registry that an image's name or a user names.
pub fn key(registry: &str) -> String {
    match registry {
        "" | "docker.io" | HUB => HUB.to_owned(),
        registry => hostname(registry).to_owned(),
    }
}

/// What helpers are told and tell (the protocol of docker-credential-helpers).
#[derive(serde::Serialize, serde::Deserialize)]
struct HelperEntry {
    #[serde(rename = "ServerURL", default)]
    server: String,
    #[serde(rename = "Username", default)]
    user: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// `http://host:5000/v2/` as `host:5000`.
pub fn hostname(address: &str) -> &str {
    let rest = address
        .strip_prefix("https://")
        .or_else(|| address.strip_prefix("http://"))
        .unwrap_or(address);
    rest.split('/').next().unwrap_or_default()
}

/// What is known for a key.
pub fn get(config: &Config, key: &str) -> Result<Option<AuthConfig>, Failure> {
    let Some(helper) = helper(config, key) else {
        return from_file(config, key);
    };
    let failed = |words: &str| Failure::new(format!("error getting credentials - {words}"));
    let answer = match ask(&helper, "get", key).map_err(|failure| failed(&failure.message))? {
        Ok(answer) => answer,
        Err(words) if words == NOT_FOUND => return Ok(None),
        Err(words) => return Err(failed(&words)),
    };
    let answer: HelperEntry =
        serde_json::from_str(&answer).map_err(|error| failed(&error.to_string()))?;
    let mut auth = AuthConfig {
        serveraddress: key.to_owned(),
        ..AuthConfig::default()
    };
    match answer.user.as_str() {
        TOKEN_USER => auth.identitytoken = answer.secret,
        _ => {
            auth.username = answer.user;
            auth.password = answer.secret;
        }
    }
    Ok(Some(auth))
}

/// The credentials for a pull, as the daemon takes them. Like docker's client it goes on without
/// those that a helper does not give: many images need none, and the registry says so otherwise.
pub fn header(config: &Config, registry: &str) -> Result<Option<HeaderValue>, Failure> {
    let key = key(registry);
    let Some(auth) = get(config, &key).ok().flatten() else {
        return Ok(None);
    };
    let unsendable = || Failure::new(format!("invalid credentials for {key}"));
    let json = serde_json::to_vec(&auth).map_err(|_| unsendable())?;
    let mut value = HeaderValue::from_str(&URL_SAFE.encode(json)).map_err(|_| unsendable())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Keeps credentials under their server's address.
pub fn store(cli: &Cli, auth: &AuthConfig) -> Result<(), Failure> {
    let mut config = cli.config().clone();
    let key = auth.serveraddress.as_str();
    let mut entry = Map::new();
    let helper = helper(&config, key);
    if let Some(helper) = &helper {
        let (user, secret) = match auth.identitytoken.as_str() {
            "" => (auth.username.as_str(), auth.password.as_str()),
            token => (TOKEN_USER, token),
        };
        let request = HelperEntry {
            server: key.into(),
            user: user.into(),
            secret: secret.into(),
        };
        let request = serde_json::to_string(&request).map_err(std::io::Error::from)? + "\n";
        ask(helper, "store", &request)
            .and_then(|stored| stored.map_err(Failure::new))
            .map_err(|failure| {
                let words = failure.message;
                Failure::new(format!(
                    "Error saving credentials: error storing credentials - {words}"
                ))
            })?;
    } else {
        let pair = format!("{}:{}", auth.username, auth.password);
        entry.insert("auth".to_owned(), STANDARD.encode(pair).into());
        if !auth.identitytoken.is_empty() {
            let token = auth.identitytoken.as_str();
            entry.insert("identitytoken".to_owned(), token.into());
        }
    }
    let changed = config
        .set_auth(key, Some(entry))
        .map_err(|error| Failure::new(format!("Error saving credentials: {error}")))?;
    if changed && helper.is_none() && !auth.password.is_empty() {
        warn(format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n",
            config
                .path()
                .strip_prefix(".")
                .unwrap_or(config.path())
                .display()
        ));
    }
    Ok(())
}

/// Forgets what is kept under one of these keys. Fails with what each says if none could be
/// erased.
pub fn erase(cli: &Cli, keys: &[String]) -> Result<(), Vec<String>> {
    let mut config = cli.config().clone();
    let mut failures = Vec::new();
    for key in keys {
        let outcome = match helper(&config, key) {
            None => Ok(()),
            Some(helper) => match ask(&helper, "erase", key) {
                Ok(Err(words)) if words != NOT_FOUND => {
                    Err(format!("error erasing credentials - {words}"))
                }
                Ok(_) => Ok(()),
                Err(failure) => Err(format!("error erasing credentials - {}", failure.message)),
            },
        };
        let outcome = outcome.and_then(|()| {
            let erased = config.set_auth(key, None);
            erased.map(drop).map_err(|error| error.to_string())
        });
        if let Err(words) = outcome {
            failures.push(format!("{key}: {words}"));
        }
    }
    match failures.len() == keys.len() {
        true => Err(failures),
        false => Ok(()),
    }
}

fn from_file(config: &Config, key: &str) -> Result<Option<AuthConfig>, Failure> {
    let Some(entry) = config.auth_entry(key, |known| hostname(known) == key) else {
        return Ok(None);
    };
    let text = |name: &str| {
        let text = entry.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let mut auth = AuthConfig {
        username: text("username"),
        password: text("password"),
        identitytoken: text("identitytoken"),
        registrytoken: text("registrytoken"),
        serveraddress: key.to_owned(),
        ..AuthConfig::default()
    };
    let encoded = text("auth");
    if !encoded.is_empty() {
        let invalid = || {
            Failure::new(format!(
                "invalid credentials for {key} in the configuration"
            ))
        };
        let decoded = STANDARD.decode(encoded).map_err(|_| invalid())?;
        let decoded = String::from_utf8(decoded).map_err(|_| invalid())?;
        let (user, password) = decoded.split_once(':').ok_or_else(invalid)?;
        auth.username = user.to_owned();
        auth.password = password.trim_end_matches('\0').to_owned();
    }
    let is_empty =
        auth.username.is_empty() && auth.identitytoken.is_empty() && auth.registrytoken.is_empty();
    Ok((!is_empty).then_some(auth))
}

/// The program that keeps the credentials for a key.
fn helper(config: &Config, key: &str) -> Option<String> {
    let name = config.helper(key).or_else(|| config.text("credsStore"))?;
    Some(format!("docker-credential-{name}"))
}

/// Runs a helper: what it prints, or what it says when it fails.
fn ask(program: &str, action: &str, input: &str) -> Result<Result<String, String>, Failure> {
    let failed = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "executable file not found in $PATH".to_owned(),
            _ => error.to_string(),
        };
        Failure::new(format!("err: exec: {program:?}: {why}, out: ``"))
    };
    let mut child = Command::new(program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read says why itself.
        stdin.write_all(input.as_bytes()).ok();
    }
    let output = child.wait_with_output().map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(match output.status.success() {
        true => Ok(text),
        false => Err(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, registry: &str, expect: Option<(&str, &str, &str)>) {
        let config = Config::parse("/nowhere/config.json".into(), file.as_bytes()).unwrap();
        let found = get(&config, &key(registry)).unwrap();
        let found = found
            .as_ref()
            .map(|auth| (&*auth.username, &*auth.password, &*auth.identitytoken));
        assert_eq!(found, expect, "{registry} in {file}");
    }

    #[test]
    fn credentials_are_found_under_every_spelling_of_their_registry() {
        let me = Some(("me", "secret", ""));
        let hub = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6c2VjcmV0"}}}"#;
        check(hub, "docker.io", me);
        check(hub, "", me);
        check(hub, "localhost:5000", None);
        let other = r#"{"auths":{"https://localhost:5000/v1/":{"auth":"bWU6c2VjcmV0"}}}"#;
        check(other, "localhost:5000", me);
        check(other, "http://localhost:5000/v2/", me);
        let plain = r#"{"auths":{"r.example":{"username":"me","password":"secret"}}}"#;
        check(plain, "r.example", me);
        let token = r#"{"auths":{"r.example":{"auth":"bWU6","identitytoken":"t"}}}"#;
        check(token, "r.example", Some(("me", "", "t")));
        check(r#"{"auths":{"r.example":{}}}"#, "r.example", None);
    }
}
