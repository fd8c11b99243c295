//! Platforms: operating system, architecture and variant, in Go's words, and which image of an
//! index runs here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    #[serde(
        rename = "os.features",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub os_features: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is an invalid platform: give os[/architecture[/variant]], such as linux/amd64")]
pub struct InvalidPlatform(pub String);

impl Platform {
    /// The platform that this program was built for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7".to_owned())),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant,
            ..Self::default()
        }
    }

    /// The same platform in its usual spelling: `x86_64` is `amd64`, `arm64/v8` is `arm64`.
    pub fn normalized(&self) -> Self {
        let mut platform = self.clone();
        platform.os = platform.os.to_ascii_lowercase();
        let architecture = platform.architecture.to_ascii_lowercase();
        let variant = platform
            .variant
            .take()
            .filter(|variant| !variant.is_empty());
        let variant = variant.map(|variant| variant.to_ascii_lowercase());
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64" | "amd64", Some(v)) => ("amd64", Some(v)),
            ("i386" | "i486" | "i586" | "i686", _) => ("386", None),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64" | "arm64", Some(v)) => ("arm64", Some(v)),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("8")) => ("arm", Some("v8")),
            (other, v) => (other, v),
        };
        platform.variant = variant.map(str::to_owned);
        platform.architecture = architecture.to_owned();
        platform
    }

    /// How well an image for `offered` runs on this platform: lower is better, `None` is not at
    /// all. An older variant of the same processor family runs, and so do 32-bit ones.
    pub fn rank(&self, offered: &Self) -> Option<usize> {
        let offered = offered.normalized();
        if offered.os != self.normalized().os {
            return None;
        }
        self.runnable().iter().position(|(architecture, variant)| {
            *architecture == offered.architecture && *variant == offered.variant
        })
    }

    /// Whether an image for `offered` is for exactly this platform. A request without a variant
    /// takes every variant.
    pub fn is_exactly(&self, offered: &Self) -> bool {
        let (asked, offered) = (self.normalized(), offered.normalized());
        asked.os == offered.os
            && asked.architecture == offered.architecture
            && asked.variant == offered.variant
    }

    fn runnable(&self) -> Vec<(String, Option<String>)> {
        let own = self.normalized();
        let mut list = vec![(own.architecture.clone(), own.variant.clone())];
        let mut add = |architecture: &str, variant: Option<String>| {
            list.push((architecture.to_owned(), variant));
        };
        let number = own
            .variant
            .as_deref()
            .and_then(|variant| variant.strip_prefix('v'))
            .and_then(|digits| digits.parse::<u32>().ok());
        match own.architecture.as_str() {
            "amd64" => {
                for older in (2..number.unwrap_or(1)).rev() {
                    add("amd64", Some(format!("v{older}")));
                }
                if number.is_some() {
                    add("amd64", None);
                }
                add("386", None);
            }
            "arm64" => {
                if own.variant.is_some() {
                    add("arm64", None);
                }
                for older in (5..=8).rev() {
                    add("arm", Some(format!("v{older}")));
                }
            }
            "arm" => {
                for older in (5..number.unwrap_or(7)).rev() {
                    add("arm", Some(format!("v{older}")));
                }
            }
            _ => {}
        }
        list
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let invalid = || InvalidPlatform(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        let valid = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(|part| valid(part)) {
            return Err(invalid());
        }
        let host = Self::host();
        let platform = match parts.as_slice() {
            ["linux"] => host,
            // A lone word is a processor when it names one, as in containerd's parser.
            [word] if is_architecture(word) => Self {
                architecture: (*word).to_owned(),
                ..host
            },
            [os] if matches!(*os, "windows" | "darwin" | "freebsd") => Self {
                os: (*os).to_owned(),
                ..host
            },
            [os, architecture] => Self {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                ..Self::default()
            },
            [os, architecture, variant] => Self {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: Some((*variant).to_owned()),
                ..Self::default()
            },
            _ => return Err(invalid()),
        };
        Ok(platform.normalized())
    }
}

fn is_architecture(word: &str) -> bool {
    matches!(
        word,
        "amd64"
            | "x86_64"
            | "x86-64"
            | "386"
            | "i386"
            | "arm"
            | "armhf"
            | "armel"
            | "arm64"
            | "aarch64"
            | "riscv64"
            | "ppc64le"
            | "s390x"
            | "loong64"
            | "mips64le"
    )
}

impl fmt::Display for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(out, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn spellings_of_one_platform_are_equal() {
        assert_eq!(platform("linux/x86_64"), platform("linux/amd64"));
        assert_eq!(platform("linux/aarch64"), platform("linux/arm64/v8"));
        assert_eq!(platform("linux/armhf").to_string(), "linux/arm/v7");
    }

    #[test]
    fn the_best_variant_wins_and_foreign_ones_do_not_run() {
        let v7 = platform("linux/arm/v7");
        assert_eq!(v7.rank(&platform("linux/arm/v7")), Some(0));
        assert!(v7.rank(&platform("linux/arm/v6")) < v7.rank(&platform("linux/arm/v5")));
        assert_eq!(v7.rank(&platform("linux/arm64")), None);
        let amd64 = platform("linux/amd64");
        assert_eq!(amd64.rank(&platform("linux/386")), Some(1));
        assert_eq!(amd64.rank(&platform("windows/amd64")), None);
    }

    #[test]
    fn broken_platforms_are_refused() {
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/am d", "nonsense"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
