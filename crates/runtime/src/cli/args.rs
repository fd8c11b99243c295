//! runc's arguments: global options, a command, its options, and operands. An option may be
//! written with one dash or two, and its value after `=` or as the next word.

use std::ffi::OsString;

use super::text;
use crate::error::Error;

/// Options with a value, before or after the command: long name, short name.
const VALUED: [(&str, &str); 13] = [
    ("root", ""),
    ("log", ""),
    ("log-format", ""),
    ("bundle", "b"),
    ("console-socket", ""),
    ("pid-file", ""),
    ("process", "p"),
    ("cwd", ""),
    ("env", "e"),
    ("user", "u"),
    ("preserve-fds", ""),
    ("format", "f"),
    ("rootless", ""),
];
/// Options without. Some are accepted because callers pass them, and mean nothing here.
const FLAGS: [(&str, &str); 10] = [
    ("debug", ""),
    ("systemd-cgroup", ""),
    ("detach", "d"),
    ("tty", "t"),
    ("all", "a"),
    ("force", ""),
    ("no-pivot", ""),
    ("no-new-keyring", ""),
    ("keep", ""),
    ("ignore-paused", ""),
];

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Args {
    options: Vec<(&'static str, String)>,
    /// The command first.
    words: Vec<String>,
}

impl Args {
    pub fn parse(args: &[OsString]) -> Result<Self, Error> {
        let mut parsed = Self::default();
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let arg = text(arg)?;
            // What follows `exec ID` belongs to the container.
            let is_command_line = parsed.words.len() >= 2 && parsed.command() == "exec";
            let Some(name) = arg.strip_prefix('-').filter(|_| !is_command_line) else {
                parsed.words.push(arg.to_owned());
                continue;
            };
            if name == "version" || name == "-version" || name == "v" {
                parsed.words.insert(0, "version".to_owned());
                continue;
            }
            let name = name.strip_prefix('-').unwrap_or(name);
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let known = |table: &[(&'static str, &str)]| {
                let is = |(long, short): &&(&'static str, &str)| *long == name || *short == name;
                table
                    .iter()
                    .find(is)
                    .map(|(long, _)| *long)
                    .filter(|_| !name.is_empty())
            };
            // `delete -f` is --force, elsewhere it is --format.
            let force = name == "f" && parsed.words.first().is_some_and(|c| c == "delete");
            if let Some(flag) = force.then_some("force").or_else(|| known(&FLAGS)) {
                parsed
                    .options
                    .push((flag, value.unwrap_or_else(|| "true".to_owned())));
            } else if let Some(option) = known(&VALUED) {
                let value = match value {
                    Some(value) => value,
                    None => match rest.next() {
                        Some(next) => text(next)?.to_owned(),
                        None => {
                            let message = format!("flag needs an argument: -{option}");
                            return Err(Error::invalid(message));
                        }
                    },
                };
                parsed.options.push((option, value));
            } else {
                return Err(Error::invalid(format!(
                    "flag provided but not defined: -{name}"
                )));
            }
        }
        Ok(parsed)
    }

    pub fn command(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The container's id, the first operand.
    pub fn id(&self) -> Result<&str, Error> {
        let id = self
            .operand(0)
            .ok_or_else(|| Error::invalid("container id cannot be empty"))?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        if id.is_empty() || !id.bytes().all(plain) || id == "." || id == ".." {
            return Err(Error::invalid(format!(
                "invalid container ID format: {id:?}"
            )));
        }
        Ok(id)
    }

    pub fn operand(&self, index: usize) -> Option<&str> {
        self.operands().get(index).map(String::as_str)
    }

    pub fn operands(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The last value wins.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values(name).last()
    }

    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.options
            .iter()
            .filter(move |(n, _)| *n == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value != "false")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, Error> {
        Args::parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_stand_before_and_after_the_command() {
        let args = parse("--root /r --log-format=json create -b /bundle --pid-file p c1").unwrap();
        assert_eq!((args.command(), args.id().unwrap()), ("create", "c1"));
        assert_eq!(args.value("root"), Some("/r"));
        assert_eq!(args.value("bundle"), Some("/bundle"));
        assert_eq!(args.value("log-format"), Some("json"));
    }

    #[test]
    fn the_options_of_an_execd_command_are_its_own() {
        let args = parse("exec -t c1 ls -l --all").unwrap();
        assert!(args.is_set("tty") && !args.is_set("all"));
        assert_eq!(args.operands(), ["c1", "ls", "-l", "--all"]);
    }

    #[test]
    fn unknown_options_and_ids_that_are_paths_are_refused() {
        assert!(parse("create --nonsense c1").is_err());
        assert!(parse("state ../x").unwrap().id().is_err());
    }
}
