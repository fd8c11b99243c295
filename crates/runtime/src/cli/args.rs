//! Words to a command, its options and its operands. An option may be written with one dash or
//! two, and its value after `=` or as the next word.

use std::ffi::OsString;
use std::fmt::Write as _;

use super::verbs::{Flag, GLOBAL, Operands, Takes, VERBS, Verb};
use crate::error::Error;

/// A command that is well formed.
#[derive(Debug)]
pub(super) struct Args {
    verb: &'static Verb,
    options: Vec<(&'static str, String)>,
    operands: Vec<String>,
}

/// What the words ask for.
#[derive(Debug)]
pub(super) enum Asked {
    Command(Args),
    /// Of a command, or of them all.
    Help(Option<&'static Verb>),
    Version,
}

/// Words that make no command, and whose help is to be shown.
#[derive(Debug)]
pub(super) struct Mistake {
    pub message: String,
    pub verb: Option<&'static Verb>,
    /// What came before the mistake, for where it is to be logged.
    pub options: Vec<(&'static str, String)>,
}

impl std::fmt::Debug for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// `program` is how the runtime was called, for the messages.
pub(super) fn parse(program: &str, args: &[OsString]) -> Result<Asked, Mistake> {
    let mut parser = Parser {
        verb: None,
        options: Vec::new(),
        operands: Vec::new(),
    };
    match parser.all(args) {
        Ok(Some(asked)) => Ok(asked),
        Ok(None) => match parser.verb {
            None => Ok(Asked::Help(None)),
            Some(verb) => match miscount(program, verb, parser.operands.len()) {
                None => Ok(Asked::Command(Args {
                    verb,
                    options: parser.options,
                    operands: parser.operands,
                })),
                Some(message) => Err(parser.mistake(message)),
            },
        },
        Err(message) => Err(parser.mistake(message)),
    }
}

struct Parser {
    verb: Option<&'static Verb>,
    options: Vec<(&'static str, String)>,
    operands: Vec<String>,
}

impl Parser {
    fn mistake(self, message: String) -> Mistake {
        Mistake {
            message,
            verb: self.verb,
            options: self.options,
        }
    }

    fn all(&mut self, args: &[OsString]) -> Result<Option<Asked>, String> {
        let mut rest = args.iter();
        let mut options_end = false;
        while let Some(arg) = rest.next() {
            let arg = utf8(arg)?;
            let passes_on = self.verb.is_some_and(|v| v.passes_on) && !self.operands.is_empty();
            let option = arg
                .strip_prefix('-')
                .filter(|name| !name.is_empty() && !passes_on && !options_end);
            match (option, self.verb) {
                (Some("-"), _) => options_end = true,
                (Some(option), _) => {
                    if let Some(asked) = self.option(option, &mut rest)? {
                        return Ok(Some(asked));
                    }
                }
                (None, Some(_)) => self.operands.push(arg.to_owned()),
                (None, None) => match VERBS.iter().find(|verb| verb.name == arg) {
                    Some(verb) => self.verb = Some(verb),
                    None if arg == "help" || arg == "h" => {
                        let of = rest.next().and_then(|name| name.to_str());
                        let verb = VERBS.iter().find(|verb| Some(verb.name) == of);
                        return Ok(Some(Asked::Help(verb)));
                    }
                    None => return Err(format!("No help topic for '{arg}'")),
                },
            }
        }
        Ok(None)
    }

    /// `option` is without its first dash.
    fn option<'a>(
        &mut self,
        option: &str,
        rest: &mut impl Iterator<Item = &'a OsString>,
    ) -> Result<Option<Asked>, String> {
        let option = option.strip_prefix('-').unwrap_or(option);
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (option, None),
        };
        match (name, self.verb) {
            ("help" | "h", verb) => return Ok(Some(Asked::Help(verb))),
            ("version" | "v", None) => return Ok(Some(Asked::Version)),
            _ => {}
        }
        let flag = match self.verb {
            Some(verb) => verb.flags().find(|flag| is(flag, name)),
            None => GLOBAL.iter().find(|flag| is(flag, name)),
        };
        let flag = flag.ok_or_else(|| format!("flag provided but not defined: -{name}"))?;
        let value = match (flag.takes, value) {
            (Takes::Nothing, None) => "true".to_owned(),
            (Takes::Nothing, Some(value)) => match value.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => "true".to_owned(),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => "false".to_owned(),
                _ => {
                    return Err(format!(
                        "invalid boolean value {value:?} for -{name}: parse error"
                    ));
                }
            },
            (Takes::Text | Takes::Number, Some(value)) => value,
            (Takes::Text | Takes::Number, None) => match rest.next() {
                Some(next) => utf8(next)?.to_owned(),
                None => return Err(format!("flag needs an argument: -{name}")),
            },
        };
        if flag.takes == Takes::Number && value.parse::<i64>().is_err() {
            return Err(format!(
                "invalid value {value:?} for flag -{name}: parse error"
            ));
        }
        self.options.push((flag.name, value));
        Ok(None)
    }
}

fn is(flag: &Flag, name: &str) -> bool {
    flag.name == name || (!flag.short.is_empty() && flag.short == name)
}

fn utf8(arg: &OsString) -> Result<&str, String> {
    arg.to_str()
        .ok_or_else(|| format!("argument {arg:?} is not UTF-8"))
}

fn miscount(program: &str, verb: &Verb, given: usize) -> Option<String> {
    let words = match verb.operands {
        Operands::Exactly(n) if given != n => format!("exactly {n}"),
        Operands::AtLeast(n) | Operands::Between(n, _) if given < n => format!("a minimum of {n}"),
        Operands::Between(_, n) if given > n => format!("a maximum of {n}"),
        _ => return None,
    };
    Some(format!(
        "{program}: {:?} requires {words} argument(s)",
        verb.name
    ))
}

impl Args {
    pub fn command(&self) -> &'static str {
        self.verb.name
    }

    /// The container's id, the first operand.
    pub fn id(&self) -> Result<&str, Error> {
        let id = self
            .operand(0)
            .filter(|id| !id.is_empty())
            .ok_or_else(|| Error::invalid("container id cannot be empty"))?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        if !id.bytes().all(plain) || id == "." || id == ".." {
            return Err(Error::invalid("invalid container ID format"));
        }
        Ok(id)
    }

    pub fn operand(&self, index: usize) -> Option<&str> {
        self.operands.get(index).map(String::as_str)
    }

    pub fn operands(&self) -> &[String] {
        &self.operands
    }

    /// The last value wins; an empty one is none.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values(name).last().filter(|value| !value.is_empty())
    }

    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        values(&self.options, name)
    }

    /// The value of an option that takes a number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.values(name)
            .last()
            .and_then(|value| value.parse().ok())
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.value(name) == Some("true")
    }

    /// Whether it was given at all, `false` included.
    pub fn is_given(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    pub fn options(&self) -> &[(&'static str, String)] {
        &self.options
    }
}

pub(super) fn values<'a>(
    options: &'a [(&'static str, String)],
    name: &str,
) -> impl Iterator<Item = &'a str> {
    options
        .iter()
        .filter(move |(n, _)| *n == name)
        .map(|(_, value)| value.as_str())
}

/// The help of one command, or of the program.
pub(super) fn help(program: &str, verb: Option<&Verb>) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = match verb {
        Some(verb) => write!(
            text,
            "Usage: {program} [global option...] {} [option...] {}\n\n{}\n",
            verb.name, verb.usage, verb.summary
        ),
        None => write!(
            text,
            "Usage: {program} [global option...] command [option...] [argument...]\n\n\
             An OCI runtime: runs containers from bundles, with runc's commands and options.\n\n\
             Commands:\n{}",
            VERBS
                .iter()
                .map(|verb| format!("  {:<10} {}\n", verb.name, verb.summary))
                .collect::<String>()
        ),
    };
    let own: Vec<&Flag> = verb.map_or_else(Vec::new, |verb| verb.flags().collect());
    for (title, flags) in [
        ("Options", own),
        ("Global options", GLOBAL.iter().collect()),
    ] {
        if flags.is_empty() || (verb.is_some() && title != "Options") {
            continue;
        }
        let _ = write!(text, "\n{title}:\n");
        for flag in flags {
            let short = match flag.short {
                "" => String::new(),
                short => format!(", -{short}"),
            };
            let value = match flag.takes {
                Takes::Nothing => "",
                Takes::Text => " VALUE",
                Takes::Number => " N",
            };
            let name = format!("--{}{short}{value}", flag.name);
            let _ = writeln!(text, "  {name:<28} {}", flag.help);
        }
    }
    text
}

#[cfg(test)]
pub(super) fn parsed(line: &str) -> Args {
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    match parse("runc", &words) {
        Ok(Asked::Command(args)) => args,
        other => panic!("{line}: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        match parse("runc", &words) {
            Err(mistake) => mistake.message,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_stand_before_and_after_the_command() {
        let args = parsed("--root /r --log-format=json create -b /bundle --pid-file p c1");
        assert_eq!((args.command(), args.id().unwrap()), ("create", "c1"));
        assert_eq!(args.value("root"), Some("/r"));
        assert_eq!(args.value("bundle"), Some("/bundle"));
        assert_eq!(args.value("log-format"), Some("json"));
    }

    #[test]
    fn options_stand_on_both_sides_of_the_id() {
        assert!(parsed("delete c1 --force").is_set("force"));
        assert!(parsed("delete -f c1").is_set("force"));
        assert!(!parsed("delete --force=false c1").is_set("force"));
    }

    #[test]
    fn the_options_of_another_program_are_its_own() {
        let args = parsed("exec -t c1 ls -l --all -- -x");
        assert!(args.is_set("tty"));
        assert_eq!(args.operands(), ["c1", "ls", "-l", "--all", "--", "-x"]);
        let args = parsed("ps --format json c1 -e -o pid");
        assert_eq!(args.operands(), ["c1", "-e", "-o", "pid"]);
    }

    #[test]
    fn mistakes_have_runcs_words() {
        for (line, words) in [
            (
                "create --nonsense c1",
                "flag provided but not defined: -nonsense",
            ),
            ("create", "runc: \"create\" requires exactly 1 argument(s)"),
            ("exec", "runc: \"exec\" requires a minimum of 1 argument(s)"),
            (
                "kill a 9 b",
                "runc: \"kill\" requires a maximum of 2 argument(s)",
            ),
            ("create --bundle", "flag needs an argument: -bundle"),
            (
                "create --preserve-fds x c1",
                "invalid value \"x\" for flag -preserve-fds: parse error",
            ),
            ("nothing", "No help topic for 'nothing'"),
        ] {
            assert_eq!(refused(line), words);
        }
    }

    #[test]
    fn an_id_is_no_path() {
        for line in ["state ../x", "state ..", "state a/b"] {
            assert!(parsed(line).id().is_err(), "{line}");
        }
    }

    #[test]
    fn every_command_has_help() {
        for verb in VERBS {
            let text = help("runc", Some(verb));
            assert!(verb.flags().all(|flag| text.contains(flag.name)), "{text}");
        }
        assert!(help("runc", None).contains("--systemd-cgroup"));
    }
}
