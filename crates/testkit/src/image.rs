//! The images of the tests, as `tests/prepare` made them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where the images and tools are.
pub fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let given = std::env::var_os("BERTH_TEST_CACHE").map(PathBuf::from);
        let cache = given.unwrap_or_else(|| PathBuf::from("/var/cache/berth-tests"));
        assert!(
            cache.join("busybox.tar").exists(),
            "no images in {}: run tests/prepare first",
            cache.display()
        );
        cache
    })
}

/// A docker archive: `busybox`, `debian`, `redis`, `nginx`, `mysql` or `wordpress`.
pub fn archive(name: &str) -> PathBuf {
    cache().join(format!("{name}.tar"))
}

/// The OCI layout that holds all of them.
pub fn layout() -> PathBuf {
    cache().join("oci")
}

/// The real docker client.
pub fn docker() -> PathBuf {
    let own = cache().join("bin/docker");
    if own.exists() {
        own
    } else {
        PathBuf::from("docker")
    }
}

/// A Python that has docker-py.
pub fn python() -> PathBuf {
    cache().join("python/bin/python")
}
