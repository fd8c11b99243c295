//! What this binary was built from.

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit's short hash, or `unknown` for a build from an archive.
pub fn commit() -> &'static str {
    env!("BERTH_COMMIT")
}

/// As the engine reports it.
pub fn engine_version() -> berth_engine::Version {
    berth_engine::Version {
        version: VERSION.to_owned(),
        git_commit: commit().to_owned(),
        build_time: String::new(),
    }
}
