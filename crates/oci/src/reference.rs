//! Image names as Docker reads and writes them: `[domain/]path[:tag][@digest]`, with `docker.io`
//! and `library/` left out for people (the grammar of the `distribution/reference` project).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, InvalidDigest};

/// The registry that is meant when a name has none.
pub const DEFAULT_DOMAIN: &str = "docker.io";
pub const DEFAULT_TAG: &str = "latest";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const NAME_LIMIT: usize = 255;
const TAG_LIMIT: usize = 128;

/// A full image name. Always has a domain; may have a tag, a digest, both or none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    UpperCase(String),
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    #[error("repository name must not be more than {NAME_LIMIT} characters")]
    TooLong,
    #[error("invalid tag format")]
    Tag,
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

impl Reference {
    /// The registry: a host name with an optional port.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry, such as `library/redis`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `domain/path`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as people write it: without `docker.io/` and `library/`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as people write it.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// Whether it has neither a tag nor a digest.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// With `:latest` when it has neither a tag nor a digest.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.is_name_only() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository with this tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, InvalidReference> {
        if !is_tag(tag) {
            return Err(InvalidReference::Tag);
        }
        Ok(Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    /// The same repository with this digest and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The repository alone.
    #[must_use]
    pub fn repository(&self) -> Self {
        Self {
            tag: None,
            digest: None,
            ..self.clone()
        }
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

/// Canonical: always with the domain.
impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.with_suffix(self.name()))
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if is_full_id(text) {
            return Err(InvalidReference::LooksLikeId(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let name_part = remainder.split([':', '@']).next().unwrap_or_default();
        if name_part.bytes().any(|byte| byte.is_ascii_uppercase()) {
            let name = remainder.split(':').next().unwrap_or_default();
            let official = domain == DEFAULT_DOMAIN && !name.contains('/');
            let prefix = if official { OFFICIAL_PREFIX } else { "" };
            return Err(InvalidReference::UpperCase(format!("{prefix}{name}")));
        }
        let (rest, digest) = match remainder.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (remainder, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if !is_path(path) || !is_domain(domain) || tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(InvalidReference::Format);
        }
        let digest = digest.map(parse_digest).transpose()?;
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("{OFFICIAL_PREFIX}{path}")
        } else {
            path.to_owned()
        };
        if domain.len() + 1 + path.len() > NAME_LIMIT {
            return Err(InvalidReference::TooLong);
        }
        Ok(Self {
            domain: domain.to_owned(),
            path,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// Whether the text is a whole id: 64 hexadecimal digits.
pub fn is_full_id(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The hexadecimal digits of what may be a shortened image id (`[sha256:]` and 4 to 64 digits).
pub fn id_prefix(text: &str) -> Option<&str> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let valid = (4..=64).contains(&hex.len())
        && hex
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    valid.then_some(hex)
}

pub fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=TAG_LIMIT).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag
            .bytes()
            .all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// A first part is a registry only when it looks like a host: it has a dot, a port or capitals,
/// or is `localhost`.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            let domain = if first == LEGACY_DOMAIN {
                DEFAULT_DOMAIN
            } else {
                first
            };
            (domain, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

fn parse_digest(text: &str) -> Result<Digest, InvalidReference> {
    match text.parse() {
        Ok(digest) => Ok(digest),
        Err(InvalidDigest::Format) => Err(InvalidReference::Format),
        Err(error) => Err(error.into()),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = if domain.starts_with('[') {
        match domain.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => return false,
        }
    } else {
        match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        }
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[') {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.split('.').all(|part| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

fn is_path(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(is_path_component)
}

/// Alphanumeric words separated by one dot, one or two underscores, or any number of dashes.
fn is_path_component(component: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !word(first) || !word(last) {
        return false;
    }
    bytes
        .split(|&byte| word(byte))
        .all(|separator| match separator {
            b"" | b"." | b"_" | b"__" => true,
            dashes => dashes.iter().all(|&byte| byte == b'-'),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, canonical: &str, familiar: &str) {
        let reference: Reference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(reference.to_string(), canonical, "{text}");
        assert_eq!(reference.familiar(), familiar, "{text}");
        assert_eq!(canonical.parse::<Reference>(), Ok(reference));
    }

    #[test]
    fn names_expand_and_shorten_as_in_docker() {
        check("redis", "docker.io/library/redis", "redis");
        check("redis:7", "docker.io/library/redis:7", "redis:7");
        check("a/b", "docker.io/a/b", "a/b");
        check("index.docker.io/a/b:c", "docker.io/a/b:c", "a/b:c");
        check("docker.io/redis", "docker.io/library/redis", "redis");
        check("localhost/x", "localhost/x", "localhost/x");
        check("host:5000/x/y:z", "host:5000/x/y:z", "host:5000/x/y:z");
        check("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x");
        check("UPPER/x", "UPPER/x", "UPPER/x");
        check(
            "a.b/c__d/e--f.g_h",
            "a.b/c__d/e--f.g_h",
            "a.b/c__d/e--f.g_h",
        );
        let digest = Digest::of(b"");
        check(
            &format!("redis:7@{digest}"),
            &format!("docker.io/library/redis:7@{digest}"),
            &format!("redis:7@{digest}"),
        );
    }

    #[test]
    fn malformed_names_are_refused_in_dockers_words() {
        for bad in [
            "",
            ":",
            "a:",
            "a@",
            "a@sha256:12",
            "/a",
            "a/",
            "a//b",
            "-a",
            "a..b",
            "a_",
            "a___b",
            "a b",
            "a:b c",
            "host:port/x",
            "a:-b",
            "é",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        let message = |text: &str| text.parse::<Reference>().unwrap_err().to_string();
        assert_eq!(
            message("Redis:7"),
            "invalid reference format: repository name (library/Redis) must be lowercase"
        );
        assert_eq!(message("a b"), "invalid reference format");
        assert!(message(&"a".repeat(64)).contains("64-byte hexadecimal"));
        assert_eq!(
            message(&format!("x/{}", "a".repeat(260))),
            "repository name must not be more than 255 characters"
        );
        assert!("x".repeat(128).bytes().all(|b| b == b'x') && is_tag(&"x".repeat(128)));
        assert!(!is_tag(&"x".repeat(129)));
    }

    #[test]
    fn the_default_tag_is_added_only_where_nothing_is_given() {
        let parse = |text: &str| text.parse::<Reference>().unwrap().or_latest().familiar();
        assert_eq!(parse("redis"), "redis:latest");
        assert_eq!(parse("redis:7"), "redis:7");
    }
}
