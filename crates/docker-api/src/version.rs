//! Versions of the API: reading them from paths, and refusing those that are not served.

use std::fmt;

use crate::error::Error;

/// A version `1.N`; all that were ever served have the major number 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16);

impl Version {
    pub const MAX: Self = Self(51);
    pub const MIN: Self = Self(24);

    /// The version that a path's first segment names, and whether it names one at all: `v1.40`
    /// does, `v1.x` is no version and so no path of ours.
    pub fn from_segment(segment: &str) -> Option<Result<Self, Error>> {
        let number = segment.strip_prefix('v')?;
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return None;
        }
        Some(Self::negotiate(number))
    }

    fn negotiate(number: &str) -> Result<Self, Error> {
        let mut parts = number
            .split('.')
            .map(|part| part.parse::<u16>().unwrap_or(0));
        let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let asked = (major, minor);
        if asked < (1, Self::MIN.0) {
            return Err(Error::invalid(format!(
                "client version {number} is too old. Minimum supported API version is {}, \
                 please upgrade your client to a newer version",
                Self::MIN
            )));
        }
        if asked > (1, Self::MAX.0) {
            return Err(Error::invalid(format!(
                "client version {number} is too new. Maximum supported API version is {}",
                Self::MAX
            )));
        }
        Ok(Self(minor))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(segment: &str, expect: Result<u16, &str>) {
        let got = Version::from_segment(segment).expect("is a version");
        match expect {
            Ok(minor) => assert_eq!(got.unwrap(), Version(minor)),
            Err(text) => assert_eq!(got.unwrap_err().message, text),
        }
    }

    #[test]
    fn versions_outside_of_the_range_are_refused_in_dockerds_words() {
        check("v1.24", Ok(24));
        check("v1.51", Ok(51));
        check(
            "v1.23",
            Err(
                "client version 1.23 is too old. Minimum supported API version is 1.24, \
                 please upgrade your client to a newer version",
            ),
        );
        check(
            "v1.52",
            Err("client version 1.52 is too new. Maximum supported API version is 1.51"),
        );
        check(
            "v2.0",
            Err("client version 2.0 is too new. Maximum supported API version is 1.51"),
        );
    }

    #[test]
    fn other_words_are_no_versions() {
        assert!(Version::from_segment("volumes").is_none());
        assert!(Version::from_segment("v1.24x").is_none());
    }
}
