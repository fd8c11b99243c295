//! The repository keeps its own rules.

#![allow(clippy::unwrap_used, reason = "a failed test is told by a panic")]

use std::fs;
use std::path::{Path, PathBuf};

use berth_xtask::{DEVELOPMENT, FOUNDATION, LAYERS, NEIGHBOURS, SYNCHRONOUS, UNSAFE, layer};

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Name and manifest of every crate.
fn manifests() -> Vec<(String, String)> {
    let mut all: Vec<_> = fs::read_dir(crates())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path.join("Cargo.toml")).unwrap())
        })
        .collect();
    all.sort();
    all
}

/// The names below `[dependencies]`.
fn dependencies(manifest: &str) -> Vec<String> {
    let section = manifest
        .split("\n[")
        .find(|section| section.starts_with("dependencies]"));
    let lines = section.unwrap_or("").lines().skip(1);
    let word = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or("").to_owned();
    lines
        .filter(|line| !line.starts_with('#'))
        .map(word)
        .filter(|name| !name.is_empty())
        .collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut pending = vec![crates()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

#[test]
fn every_crate_has_a_layer_and_depends_only_on_lower_ones() {
    let mut wrong = Vec::new();
    for (name, manifest) in manifests() {
        if DEVELOPMENT.contains(&name.as_str()) {
            continue;
        }
        let Some(own) = layer(&name) else {
            wrong.push(format!("{name} has no layer"));
            continue;
        };
        for other in dependencies(&manifest) {
            let Some(other) = other.strip_prefix("berth-") else {
                continue;
            };
            let below = layer(other).is_some_and(|other| other < own);
            let allowed = other == FOUNDATION || NEIGHBOURS.contains(&(name.as_str(), other));
            if !below && !allowed {
                wrong.push(format!("{name} depends on {other}, which is not below it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_layers_name_only_crates_that_exist() {
    for name in LAYERS.iter().copied().flatten() {
        assert!(crates().join(name).is_dir(), "{name}");
    }
}

#[test]
fn what_forks_has_no_asynchronous_runtime() {
    for (name, manifest) in manifests() {
        if SYNCHRONOUS.contains(&name.as_str()) {
            let found = dependencies(&manifest)
                .into_iter()
                .find(|dependency| dependency.contains("tokio"));
            assert_eq!(found, None, "{name}");
        }
    }
}

#[test]
fn unsafe_code_is_in_one_crate() {
    let fence = crates().join(UNSAFE);
    // Spelled apart, so that this file passes its own test.
    let words = [
        concat!("unsafe", " {"),
        concat!("unsafe", " fn"),
        concat!("unsafe", " impl"),
        concat!("allow(unsafe", "_code"),
    ];
    for (path, text) in sources() {
        if path.starts_with(&fence) {
            continue;
        }
        for word in words {
            assert!(!text.contains(word), "{} has {word:?}", path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_owns() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn only_the_binary_reads_the_environment() {
    let word = concat!("std::env", "::var");
    for (path, text) in sources() {
        let relative = path.strip_prefix(crates()).unwrap();
        let name = relative.iter().next().unwrap().to_string_lossy();
        let is_test = relative.iter().any(|part| part == "tests") || DEVELOPMENT.contains(&&*name);
        if name == "berth" || is_test {
            continue;
        }
        assert!(
            !text.contains(word),
            "{} reads the environment",
            path.display()
        );
    }
}

#[test]
fn no_tool_or_path_of_a_workplace_is_named() {
    let words = [concat!("/wo", "rk/"), concat!("farm", "-")];
    let root = crates().parent().unwrap().to_owned();
    let listed = std::process::Command::new("git")
        .args(["ls-files"])
        .current_dir(&root)
        .output()
        .unwrap();
    for file in String::from_utf8(listed.stdout).unwrap().lines() {
        let Ok(text) = fs::read_to_string(root.join(file)) else {
            continue;
        };
        for word in words {
            assert!(!text.contains(word), "{file} names {word:?}");
        }
    }
}

#[test]
fn ci_runs_the_test_command_of_the_readme_and_nothing_else() {
    let root = crates().parent().unwrap().to_owned();
    let text = fs::read_to_string(root.join(".ci/run")).unwrap();
    let setup = ["set ", "cd ", "#"];
    let commands: Vec<_> = text
        .lines()
        .filter(|line| !setup.iter().any(|word| line.starts_with(word)))
        .collect();
    let [command] = commands[..] else {
        panic!(".ci/run has other commands: {commands:?}");
    };
    let command = command.strip_prefix("exec ").unwrap();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let shown = |line: &str| line.split("  #").next().unwrap().trim() == command;
    assert!(readme.lines().any(shown), "README.md lacks {command:?}");
}
