//! What a command is: words, flags, how many arguments, and what it does.

pub mod tree;

use crate::cli::Cli;
use crate::failure::Outcome;
use crate::flags::{Flag, Order, Parsed};

#[derive(Clone, Copy)]
pub struct Command {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    /// What follows the name in the usage line.
    pub usage: &'static str,
    pub about: &'static str,
    /// More about it, in place of `about` in its own help.
    pub long: &'static str,
    /// All ways to say it, when there are several: `container run, run`.
    pub also: &'static [&'static str],
    pub flags: &'static [Flag],
    pub order: Order,
    pub arity: Arity,
    pub hidden: bool,
    pub body: Body,
}

#[derive(Clone, Copy)]
pub enum Body {
    Run(fn(&Cli, &Parsed) -> Outcome),
    Group(&'static [Command]),
}

/// How many arguments a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    None,
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
    Any,
}

impl Command {
    /// A leaf without flags or arguments, to be completed by struct update.
    pub const fn leaf(
        name: &'static str,
        usage: &'static str,
        about: &'static str,
        run: fn(&Cli, &Parsed) -> Outcome,
    ) -> Self {
        Self {
            name,
            aliases: &[],
            usage,
            about,
            long: "",
            also: &[],
            flags: &[],
            order: Order::Mixed,
            arity: Arity::None,
            hidden: false,
            body: Body::Run(run),
        }
    }

    pub const fn group(
        name: &'static str,
        about: &'static str,
        commands: &'static [Command],
    ) -> Self {
        Self {
            name,
            aliases: &[],
            usage: "COMMAND",
            about,
            long: "",
            also: &[],
            flags: &[],
            order: Order::FlagsFirst,
            arity: Arity::Any,
            hidden: false,
            body: Body::Group(commands),
        }
    }

    pub const fn flags(mut self, flags: &'static [Flag]) -> Self {
        self.flags = flags;
        self
    }

    pub const fn arity(mut self, arity: Arity) -> Self {
        self.arity = arity;
        self
    }

    pub const fn flags_first(mut self) -> Self {
        self.order = Order::FlagsFirst;
        self
    }

    pub const fn also(mut self, also: &'static [&'static str]) -> Self {
        self.also = also;
        self
    }

    pub const fn long(mut self, long: &'static str) -> Self {
        self.long = long;
        self
    }

    pub const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// The same command under other words.
    pub const fn named(mut self, name: &'static str, aliases: &'static [&'static str]) -> Self {
        self.name = name;
        self.aliases = aliases;
        self
    }

    pub fn answers_to(&self, word: &str) -> bool {
        self.name == word || self.aliases.contains(&word)
    }

    pub fn subcommands(&self) -> &'static [Command] {
        match self.body {
            Body::Group(commands) => commands,
            Body::Run(_) => &[],
        }
    }
}

impl Arity {
    /// The complaint about a wrong number, and whether help is pointed to with `See`.
    pub fn check(self, count: usize) -> Result<(), String> {
        let plural = |count: usize| if count == 1 { "argument" } else { "arguments" };
        match self {
            Self::None if count > 0 => Err("accepts no arguments".to_owned()),
            Self::Exactly(want) if count != want => {
                Err(format!("requires {want} {}", plural(want)))
            }
            Self::AtLeast(least) if count < least => {
                Err(format!("requires at least {least} {}", plural(least)))
            }
            Self::AtMost(most) if count > most => {
                Err(format!("requires at most {most} {}", plural(most)))
            }
            Self::Between(least, most) if count < least || count > most => Err(format!(
                "requires at least {least} and at most {most} {}",
                plural(most)
            )),
            _ => Ok(()),
        }
    }
}
