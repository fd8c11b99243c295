//! `berth demo`: the newcomer's first command.

use std::process::Command;

use berth_testkit::{Machine, run};

use crate::program;

#[test]
fn the_demo_shows_a_container_and_leaves_nothing() {
    let output = run(Command::new(program()).arg("demo"), b"");
    let text = output.ok();
    for words in [
        "Hello from a container!",
        "Hello",
        "berth run",
        "berth ps",
        "67108864",
        "namespace   pid:[",
        "took",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    Machine::new(vec!["berth-demo-".to_owned()]).assert_clean();
    let left = std::fs::read_dir("/var/tmp")
        .unwrap()
        .flatten()
        .any(|e| e.file_name().to_string_lossy().starts_with("berth-demo-"));
    assert!(!left, "the demo's directory is still there");
}
