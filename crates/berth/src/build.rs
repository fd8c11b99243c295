//! What this binary was built from.

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit's short hash, or `unknown` for a build from an archive. It stands in the program as
/// these bytes, and not as numbers in instructions: whoever has a binary can look for it, and the
/// test of upgrades makes another build by overwriting it.
pub fn commit() -> &'static str {
    std::hint::black_box(env!("BERTH_COMMIT"))
}

/// As the engine reports it.
pub fn engine_version() -> berth_engine::Version {
    berth_engine::Version {
        version: VERSION.to_owned(),
        git_commit: commit().to_owned(),
        build_time: String::new(),
    }
}
