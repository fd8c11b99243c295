//! What is at a path of a container.

use serde::{Deserialize, Serialize};

/// The value of the header `X-Docker-Container-Path-Stat`, as JSON in base64.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathStat {
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Bits of Go's `fs.FileMode`.
    pub mode: u32,
    /// RFC 3339.
    pub mtime: String,
    /// Where a symbolic link leads to in the end; empty for anything else.
    pub link_target: String,
}
