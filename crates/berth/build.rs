//! Hands the commit's hash to the crate, and says how the binary is linked.

fn main() {
    let commit = std::process::Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok());
    println!(
        "cargo::rustc-env=BERTH_COMMIT={}",
        commit.as_deref().map_or("unknown", str::trim)
    );
    // A static program at a fixed address has nothing to relocate when it begins: tens of thousands
    // of pointers, each written to a page that is the process's own from then on. See
    // docs/decisions/0005. The last word on the linker's command line counts.
    let set = |name: &str| std::env::var(name).unwrap_or_default();
    let is_static = set("CARGO_CFG_TARGET_FEATURE")
        .split(',')
        .any(|feature| feature == "crt-static");
    if set("CARGO_CFG_TARGET_ENV") == "gnu" && is_static {
        println!("cargo::rustc-link-arg-bins=-no-pie");
        println!("cargo::rustc-link-arg-bins=-static");
    }
    println!("cargo::rerun-if-changed=../../.git/HEAD");
    println!("cargo::rerun-if-changed=../../.git/logs/HEAD");
}
