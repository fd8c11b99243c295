//! A registry's refusal: the errors of its answer, in the words that Docker's users know.

use std::fmt;

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::challenge::Challenge;

/// How much of an unreadable answer is shown.
const SHOWN_CHARACTERS: usize = 512;

/// Why a registry, or its token server, refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// With an error of the distribution specification.
    Coded { code: Code, message: String },
    /// With an answer that no client of registries can read.
    Unreadable { status: StatusCode, body: String },
    /// With a status that no client of registries expects.
    Status(StatusCode),
}

/// The error codes that callers tell apart (distribution specification, "Error Codes").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    Denied,
    ManifestUnknown,
    NameUnknown,
    Unauthorized,
    TooManyRequests,
    /// Any other known one, in lower case with spaces.
    Other(&'static str),
}

/// Codes without a meaning of their own here, and what they say when they come without a message.
const OTHER_CODES: &[(&str, &str, &str)] = &[
    ("BLOB_UNKNOWN", "blob unknown", "blob unknown to registry"),
    (
        "DIGEST_INVALID",
        "digest invalid",
        "provided digest did not match uploaded content",
    ),
    (
        "MANIFEST_BLOB_UNKNOWN",
        "manifest blob unknown",
        "blob unknown to registry",
    ),
    ("MANIFEST_INVALID", "manifest invalid", "manifest invalid"),
    (
        "MANIFEST_UNVERIFIED",
        "manifest unverified",
        "manifest failed signature verification",
    ),
    ("NAME_INVALID", "name invalid", "invalid repository name"),
    (
        "SIZE_INVALID",
        "size invalid",
        "provided length did not match content length",
    ),
    (
        "TAG_INVALID",
        "tag invalid",
        "manifest tag did not match URI",
    ),
    ("UNAVAILABLE", "unavailable", "service unavailable"),
    (
        "UNSUPPORTED",
        "unsupported",
        "The operation is unsupported.",
    ),
];

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    errors: Vec<Entry>,
    /// Docker Hub's token server says this instead.
    #[serde(default)]
    details: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Refusal {
    /// Reads the answer of a failed request.
    pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        if !status.is_client_error() {
            return Self::Status(status);
        }
        // Errors of OAuth say more than the body does.
        for challenge in Challenge::all(headers) {
            let code = match (challenge.scheme.as_str(), challenge.get("error")) {
                ("bearer", "invalid_token") => Code::Unauthorized,
                ("bearer", "insufficient_scope") => Code::Denied,
                _ => continue,
            };
            return Self::coded(code, challenge.get("error_description"));
        }
        match serde_json::from_slice::<Answer>(body) {
            Ok(answer) => match answer.errors.first() {
                Some(entry) => {
                    let (code, default) = Code::parse(&entry.code);
                    let message = match entry.message.as_str() {
                        "" => default,
                        message => message,
                    };
                    return Self::coded(code, message);
                }
                None if !answer.details.is_empty() => {
                    if let Some(code) = Code::of_status(status) {
                        return Self::coded(code, &answer.details);
                    }
                }
                None => {}
            },
            Err(_) if status == StatusCode::UNAUTHORIZED => {}
            Err(_) => {
                let text = String::from_utf8_lossy(body);
                return Self::Unreadable {
                    status,
                    body: text.chars().take(SHOWN_CHARACTERS).collect(),
                };
            }
        }
        match Code::of_status(status) {
            Some(code) => Self::coded(code, ""),
            None => Self::Status(status),
        }
    }

    /// Whether asking again later may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Coded { code, .. } => *code == Code::TooManyRequests,
            Self::Unreadable { status, .. } | Self::Status(status) => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
        }
    }

    fn coded(code: Code, message: &str) -> Self {
        let message = match message {
            "" => code.default_message(),
            message => message,
        };
        Self::Coded {
            message: message.to_owned(),
            code,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coded { code, message } => write!(out, "{}: {message}", code.words()),
            Self::Unreadable { status, body } => write!(
                out,
                "error parsing HTTP {} response body: not the JSON of a registry: {body:?}",
                status.as_u16()
            ),
            Self::Status(status) => write!(
                out,
                "received unexpected HTTP status: {} {}",
                status.as_u16(),
                status.canonical_reason().unwrap_or_default()
            ),
        }
    }
}

impl Code {
    /// The code, and what it says by default.
    fn parse(name: &str) -> (Self, &'static str) {
        let code = match name {
            "DENIED" => Self::Denied,
            "MANIFEST_UNKNOWN" => Self::ManifestUnknown,
            "NAME_UNKNOWN" => Self::NameUnknown,
            "UNAUTHORIZED" => Self::Unauthorized,
            "TOOMANYREQUESTS" => Self::TooManyRequests,
            name => {
                let known = OTHER_CODES.iter().find(|(code, _, _)| *code == name);
                return known.map_or((Self::Other("unknown"), "unknown error"), |known| {
                    (Self::Other(known.1), known.2)
                });
            }
        };
        let message = code.default_message();
        (code, message)
    }

    fn of_status(status: StatusCode) -> Option<Self> {
        match status {
            StatusCode::UNAUTHORIZED => Some(Self::Unauthorized),
            StatusCode::FORBIDDEN => Some(Self::Denied),
            StatusCode::TOO_MANY_REQUESTS => Some(Self::TooManyRequests),
            _ => None,
        }
    }

    fn words(&self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::ManifestUnknown => "manifest unknown",
            Self::NameUnknown => "name unknown",
            Self::Unauthorized => "unauthorized",
            Self::TooManyRequests => "toomanyrequests",
            Self::Other(words) => words,
        }
    }

    fn default_message(&self) -> &'static str {
        match self {
            Self::Denied => "requested access to the resource is denied",
            Self::ManifestUnknown => "manifest unknown",
            Self::NameUnknown => "repository name not known to registry",
            Self::Unauthorized => "authentication required",
            Self::TooManyRequests => "too many requests",
            Self::Other(_) => "unknown error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, challenge: &str, body: &str, expect: &str) {
        let mut headers = HeaderMap::new();
        if !challenge.is_empty() {
            headers.insert("www-authenticate", challenge.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        let refusal = Refusal::read(status, &headers, body.as_bytes());
        assert_eq!(refusal.to_string(), expect);
    }

    #[test]
    fn refusals_speak_dockers_words() {
        check(
            404,
            "",
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"y"}}]}"#,
            "manifest unknown: manifest unknown",
        );
        check(
            401,
            r#"Bearer realm="x",error="insufficient_scope""#,
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
            "denied: requested access to the resource is denied",
        );
        check(
            401,
            "",
            r#"{"details":"incorrect username or password"}"#,
            "unauthorized: incorrect username or password",
        );
        check(401, "", "<html>", "unauthorized: authentication required");
        check(
            404,
            "",
            r#"{"errors":[{"code":"NEW_CODE","message":"m"}]}"#,
            "unknown: m",
        );
        check(
            404,
            "",
            "<html>",
            "error parsing HTTP 404 response body: not the JSON of a registry: \"<html>\"",
        );
        check(
            500,
            "",
            "{}",
            "received unexpected HTTP status: 500 Internal Server Error",
        );
    }
}
