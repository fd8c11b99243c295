//! Ids of engine objects: 256 random bits as 64 hexadecimal digits, as Docker's.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many digits of an id a person sees.
pub const SHORT_LENGTH: usize = 12;

/// A full id: 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

/// The text is no full id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidId(pub String);

impl Id {
    /// A fresh id. Its short form never looks like a decimal number, since such a word would be
    /// ambiguous as a host name.
    ///
    /// # Panics
    /// When the kernel has no random source, which no supported kernel lacks.
    pub fn random() -> Self {
        loop {
            let mut bytes = [0u8; 32];
            getrandom::fill(&mut bytes).expect("the kernel's random source answers");
            let id = Self::from_bytes(&bytes);
            if id.short().bytes().any(|digit| !digit.is_ascii_digit()) {
                return id;
            }
        }
    }

    fn from_bytes(bytes: &[u8; 32]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
        Self(
            bytes
                .iter()
                .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
                .collect(),
        )
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits.
    pub fn short(&self) -> &str {
        &self.0[..SHORT_LENGTH]
    }
}

/// Whether the text could be the beginning of an id.
pub fn is_prefix(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl TryFrom<String> for Id {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        if text.len() == 64 && is_prefix(&text) {
            Ok(Self(text))
        } else {
            Err(InvalidId(text))
        }
    }
}

impl std::str::FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::try_from(text.to_owned())
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Display for InvalidId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} is not an id of 64 hexadecimal digits", self.0)
    }
}

impl std::error::Error for InvalidId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_are_full_and_differ() {
        let (one, other) = (Id::random(), Id::random());
        assert_ne!(one, other);
        assert_eq!(one.as_str().parse::<Id>(), Ok(one.clone()));
        assert_eq!(one.short().len(), SHORT_LENGTH);
    }

    #[test]
    fn shortened_and_upper_case_ids_are_refused() {
        assert!("abc".parse::<Id>().is_err());
        assert!("A".repeat(64).parse::<Id>().is_err());
    }
}
