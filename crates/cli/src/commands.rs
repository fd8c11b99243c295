//! One file a command, or a few that do the same to different things.

pub mod attach;
pub mod changes;
pub mod completion;
pub mod context;
pub mod cp;
pub mod create;
pub mod events;
pub mod exec;
pub mod image;
pub mod images;
pub mod info;
pub mod inspect;
pub mod lifecycle;
pub mod load;
pub mod login;
pub mod logs;
pub mod network;
pub mod port;
pub mod ports;
pub mod ps;
pub mod pull;
pub mod run;
pub mod start;
pub mod system;
pub mod update;
pub mod version;
pub mod volume;
pub mod volume_copy;
mod waiting;

use berth_docker::filters::Filters;

use crate::cli::warn;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind};

const FORMAT_HELP: &str = "Format the output:\n\
'table':            A table with headers (default)\n\
'table TEMPLATE':   A table by this Go template\n\
'json':             JSON\n\
'TEMPLATE':         Text by this Go template";

const INSPECT_FORMAT_HELP: &str = "Format the output:\n\
'json':             JSON\n\
'TEMPLATE':         Text by this Go template";

/// `--format` of lists.
const FORMAT: Flag = Flag::text("format", FORMAT_HELP);
/// `--format` of what is shown as JSON.
const INSPECT_FORMAT: Flag = Flag::text("format", INSPECT_FORMAT_HELP).short('f');
const FILTER: Flag = Flag::of(
    "filter",
    Kind::Many("filter"),
    "Show only what meets this condition",
)
.short('f')
.check(check_filter);
const NO_TRUNC: Flag = Flag::switch("no-trunc", "Do not shorten the output");

fn check_filter(text: &str) -> Result<(), String> {
    match text.contains('=') || text.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "invalid argument {text:?}: bad format of filter (expected name=value)"
        )),
    }
    .map_err(|_| "bad format of filter (expected name=value)".to_owned())
}

/// The values of `--filter`.
fn filters(given: &[String]) -> Filters {
    let mut filters = Filters::default();
    for text in given {
        if let Some((key, value)) = text.split_once('=') {
            filters.add(key.trim().to_lowercase(), value.trim());
        }
    }
    filters
}

/// The filters for a query, if there are any.
fn filters_query(filters: &Filters) -> Option<String> {
    (!filters.is_empty())
        .then(|| serde_json::to_string(filters).ok())
        .flatten()
}

/// What went wrong with some of several things, each in a line of its own.
#[derive(Default)]
struct Failures(Vec<Failure>);

impl Failures {
    fn push(&mut self, failure: impl Into<Failure>) {
        self.0.push(failure.into());
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn outcome(self) -> Outcome {
        let unreachable = self.0.iter().any(|failure| failure.unreachable);
        match self.0.len() {
            0 => Ok(0),
            // Ten names behind one closed door are one problem.
            _ if unreachable => {
                let first = self.0.into_iter().find(|failure| failure.unreachable);
                Err(first.unwrap_or_else(|| Failure::silent(1)))
            }
            _ => {
                let lines: Vec<String> =
                    self.0.into_iter().map(|failure| failure.message).collect();
                Err(Failure::new(lines.join("\n")))
            }
        }
    }
}

/// Asks a question; only `y` and `yes` mean yes.
fn confirm(warning: &str) -> Result<bool, Failure> {
    crate::cli::print(format!(
        "{warning}\nAre you sure you want to continue? [y/N] "
    ))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    let yes = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    if !yes {
        warn("Error: operation canceled");
    }
    Ok(yes)
}
