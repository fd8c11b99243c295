//! What the runtime says: to `--log`, or to standard error, a line each, in the two formats that
//! callers of runc parse (logrus' text and JSON).

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;

use berth_base::time::Timestamp;

use super::args;
use crate::error::{Error, io_words};

pub(super) struct Log {
    /// `None` is standard error.
    file: Option<RefCell<File>>,
    json: bool,
}

#[derive(Debug, Clone, Copy)]
enum Level {
    Warning,
    Error,
}

impl Log {
    pub fn stderr() -> Self {
        Self {
            file: None,
            json: false,
        }
    }

    pub fn open(options: &[(&'static str, String)]) -> Result<Self, Error> {
        let value = |name| args::values(options, name).last().unwrap_or("");
        let json = match value("log-format") {
            "" | "text" => false,
            "json" => true,
            other => return Err(Error::invalid(format!("invalid log-format: {other}"))),
        };
        let file = match value("log") {
            "" => None,
            path => Some(
                File::options()
                    .append(true)
                    .create(true)
                    .open(path)
                    .map(RefCell::new)
                    .map_err(|e| Error::invalid(format!("open {path}: {}", io_words(&e))))?,
            ),
        };
        Ok(Self { file, json })
    }

    pub fn warning(&self, message: &str) {
        self.write(Level::Warning, message);
    }

    /// Also on standard error when there is a log, since a person reads only that.
    pub fn error(&self, message: &str) {
        self.write(Level::Error, message);
        if self.file.is_some() {
            eprintln!("{message}");
        }
    }

    fn write(&self, level: Level, message: &str) {
        let line = line(self.json, level, Timestamp::now(), message);
        // A log that cannot be written must not hide what happened.
        let _ = match &self.file {
            Some(file) => file.borrow_mut().write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

fn line(json: bool, level: Level, now: Timestamp, message: &str) -> String {
    let level = match level {
        Level::Warning => "warning",
        Level::Error => "error",
    };
    // Whole seconds, as logrus has them.
    let time = Timestamp(now.unix_seconds() * 1_000_000_000);
    match json {
        true => {
            let line = serde_json::json!({"level": level, "msg": message, "time": time});
            format!("{line}\n")
        }
        // JSON's way of quoting is Go's, but for what no message holds.
        false => {
            let quoted = serde_json::Value::from(message);
            format!("time=\"{time}\" level={level} msg={quoted}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_logrus_lines() {
        let now = Timestamp(1_500_000_000_123_456_789);
        assert_eq!(
            line(false, Level::Warning, now, "a \"b\"\nc"),
            "time=\"2017-07-14T02:40:00Z\" level=warning msg=\"a \\\"b\\\"\\nc\"\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&line(true, Level::Error, now, "x")).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"level": "error", "msg": "x", "time": "2017-07-14T02:40:00Z"})
        );
    }
}
