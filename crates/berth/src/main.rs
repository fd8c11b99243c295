//! The `berth` binary: arguments to configuration, build, run, drain.
fn main() {}
