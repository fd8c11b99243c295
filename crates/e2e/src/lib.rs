//! End-to-end tests: see `tests/e2e`. They drive the built binary with real clients and link none of it.
