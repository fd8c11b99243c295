//! What lies on the disk after the log has been written to.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use super::*;

const FOREVER: Limits = Limits {
    max_size_bytes: None,
    max_files: 1,
    compress: false,
};

fn open(path: &Path, limits: Limits) -> JsonFile {
    JsonFile::open(path, limits, &BTreeMap::new()).unwrap()
}

/// A log whose files have 1,000 bytes, with lines of these numbers written to it.
fn thousand(
    path: &Path,
    max_files: u32,
    compress: bool,
    lines: u32,
) -> (JsonFile, Result<(), Error>) {
    let limits = Limits {
        max_size_bytes: Some(1000),
        max_files,
        compress,
    };
    let mut log = open(path, limits);
    let lines: String = (0..lines)
        .map(|number| format!("line {number}\n"))
        .collect();
    let written = log.write(Stream::Stdout, lines.as_bytes(), 0);
    (log, written)
}

#[test]
fn records_have_docker_s_form() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let attrs = [("b", "2"), ("a", "<1>")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let mut log = JsonFile::open(&path, FOREVER, &attrs.into()).unwrap();
    log.write(Stream::Stdout, b"hi\n", 1_500_000_000).unwrap();
    log.write(Stream::Stderr, b"no end", 2_000_000_000).unwrap();
    log.finish().unwrap();
    let attrs = r#""attrs":{"a":"\u003c1\u003e","b":"2"}"#;
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!(
            "{{\"log\":\"hi\\n\",\"stream\":\"stdout\",{attrs},\"time\":\"1970-01-01T00:00:01.5Z\"}}\n\
             {{\"log\":\"no end\",\"stream\":\"stderr\",{attrs},\"time\":\"1970-01-01T00:00:02Z\"}}\n"
        )
    );
}

#[test]
fn a_torn_record_is_cut_off_at_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    for (before, after) in [
        ("", ""),
        ("{}\n", "{}\n"),
        ("{}\n{\"lo", "{}\n"),
        ("{\"lo", ""),
    ] {
        fs::write(&path, before).unwrap();
        let log = open(&path, FOREVER);
        assert_eq!(log.size_bytes, after.len() as u64);
        assert_eq!(fs::read_to_string(&path).unwrap(), after);
    }
}

#[test]
fn rotation_keeps_the_newest_files_and_no_record_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut log, written) = thousand(&path, 3, false, 100);
    written.unwrap();
    log.finish().unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let all = read("log.2") + &read("log.1") + &read("log");
    let numbers: Vec<_> = all
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|record| record["log"].as_str().unwrap().trim_end().to_owned())
        .collect();
    let expect: Vec<_> = (100 - numbers.len()..100)
        .map(|n| format!("line {n}"))
        .collect();
    assert_eq!(numbers, expect);
    assert!(
        (1000..1100).contains(&read("log.1").len()),
        "{}",
        read("log.1").len()
    );
    assert!(!dir.path().join("log.3").exists());
}

/// A process with threads, as this one, cannot fork.
#[test]
fn a_file_is_rotated_once_also_when_nothing_can_be_forked_to_compress_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut log, written) = thousand(&path, 2, true, 30);
    assert!(written.is_err());
    log.finish().unwrap();
    let length = fs::metadata(dir.path().join("log.1")).unwrap().len();
    assert!((1000..1100).contains(&length), "{length}");
}

#[test]
fn a_single_file_starts_again_when_it_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = open(
        &path,
        Limits {
            max_size_bytes: Some(200),
            ..FOREVER
        },
    );
    for number in 0..50 {
        log.write(Stream::Stdout, format!("{number}\n").as_bytes(), 0)
            .unwrap();
        log.flush().unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.len() < 300 && text.ends_with("\"}\n") && text.contains("\"49\\n\""),
        "{text}"
    );
}

#[test]
fn a_full_disk_loses_records_but_tears_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = open(&path, FOREVER);
    log.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    log.write(Stream::Stdout, b"lost\n", 0).unwrap();
    assert!(matches!(log.flush(), Err(Error::Write { .. })));
    log.file = open_append(&path).unwrap();
    log.write(Stream::Stdout, b"kept\n", 0).unwrap();
    log.flush().unwrap();
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .starts_with("{\"log\":\"kept\\n\"")
    );
}

#[test]
fn compressed_files_hold_the_same_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(dir.path().join("log.1"), "{\"log\":\"old\\n\"}\n").unwrap();
    super::rotate::compress_here(&path).unwrap();
    let mut text = String::new();
    let gz = fs::File::open(dir.path().join("log.1.gz")).unwrap();
    flate2::read::GzDecoder::new(gz)
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "{\"log\":\"old\\n\"}\n");
    assert!(!dir.path().join("log.1").exists());
}
