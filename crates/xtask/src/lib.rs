//! Rules of the repository that the compiler does not know; `tests/tidy.rs` holds the code to
//! them. [`LAYERS`] is the picture of ARCHITECTURE.md as data.

/// The crates by layer, lowest first. A crate depends only on layers below its own.
pub const LAYERS: &[&[&str]] = &[
    &["base", "oci", "docker"],
    &["sys", "tasks", "http", "store"],
    &["runtime", "image", "net", "dns", "docker-client"],
    &["keeper"],
    &["engine"],
    &["docker-api", "cli"],
    &["berth"],
];

/// Within the lowest layer, all may use this one.
pub const FOUNDATION: &str = "base";

/// What sits beside another of its own layer, with the reason.
pub const NEIGHBOURS: &[(&str, &str)] = &[
    // Listeners and connections are supervised tasks.
    ("http", "tasks"),
];

/// For development only: nothing but tests may depend on them.
pub const DEVELOPMENT: &[&str] = &["testkit", "e2e", "xtask"];

/// What forks runs no asynchronous runtime.
pub const SYNCHRONOUS: &[&str] = &["base", "oci", "docker", "sys", "runtime", "keeper"];

/// The only crate with unsafe code.
pub const UNSAFE: &str = "sys";

/// The layer of a crate.
pub fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}
