//! The key sequence by which a client leaves a container without ending it.

use crate::error::{Error, Result};

/// `ctrl-p,ctrl-q`.
const DEFAULT: [u8; 2] = [16, 17];

/// Bytes of Docker's notation: keys separated by commas, each one character or `ctrl-` and one of
/// `a`-`z`, `@`, `[`, `\`, `]`, `^`, `_`. `None` or nothing is Docker's default.
pub fn parse(keys: Option<&str>) -> Result<Vec<u8>> {
    match keys {
        None | Some("") => Ok(DEFAULT.to_vec()),
        Some(keys) => keys
            .split(',')
            .map(|key| byte(key).ok_or_else(|| invalid(keys)))
            .collect(),
    }
}

fn byte(key: &str) -> Option<u8> {
    if let [single] = key.as_bytes() {
        return Some(*single);
    }
    match key.strip_prefix("ctrl-")?.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        [letter @ b'A'..=b'Z'] => Some(letter - b'A' + 1),
        b"@" => Some(0),
        [other @ b'['..=b'_'] => Some(other - b'[' + 27),
        _ => None,
    }
}

fn invalid(keys: &str) -> Error {
    Error::invalid(format!("Invalid detach keys ({keys}) provided"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notations_become_bytes() {
        assert_eq!(parse(None), Ok(vec![16, 17]));
        assert_eq!(
            parse(Some("ctrl-a,x,ctrl-],ctrl-@")),
            Ok(vec![1, b'x', 29, 0])
        );
        assert_eq!(
            parse(Some("ctrl-aa")).unwrap_err().message,
            "Invalid detach keys (ctrl-aa) provided"
        );
    }
}
