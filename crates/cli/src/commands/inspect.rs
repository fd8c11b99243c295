//! `inspect` of anything, and of one kind of thing: the daemon's own JSON, or parts of it.

use berth_docker_client::{Client, Error, Query, Request, query};

use crate::cli::{Cli, print};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};
use crate::format::indent_json;
use crate::template::{self, Value};

use super::INSPECT_FORMAT;
use super::run::container_path;

pub const INSPECT: Command = Command::leaf(
    "inspect",
    "NAME|ID [NAME|ID...]",
    "Return low-level information on Docker objects",
    any,
)
.flags(&[
    INSPECT_FORMAT,
    Flag::switch("size", "Show the sizes of the files of a container").short('s'),
    Flag::text("type", "Look only at objects of this type"),
])
.arity(Arity::AtLeast(1));

pub const CONTAINER: Command = Command::leaf(
    "inspect",
    "CONTAINER [CONTAINER...]",
    "Display detailed information on one or more containers",
    |cli, flags| show(cli, flags, &[Kind::Container]),
)
.flags(&[
    INSPECT_FORMAT,
    Flag::switch("size", "Show the sizes of the files").short('s'),
])
.arity(Arity::AtLeast(1));

pub const IMAGE: Command = Command::leaf(
    "inspect",
    "IMAGE [IMAGE...]",
    "Display detailed information on one or more images",
    |cli, flags| show(cli, flags, &[Kind::Image]),
)
.flags(&[
    INSPECT_FORMAT,
    Flag::text("platform", "The platform to show (\"linux/amd64\")"),
])
.arity(Arity::AtLeast(1));

pub const NETWORK: Command = Command::leaf(
    "inspect",
    "NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    |cli, flags| show(cli, flags, &[Kind::Network]),
)
.flags(&[
    INSPECT_FORMAT,
    Flag::switch("verbose", "Show more, to find out what is wrong").short('v'),
])
.arity(Arity::AtLeast(1));

pub const VOLUME: Command = Command::leaf(
    "inspect",
    "VOLUME [VOLUME...]",
    "Display detailed information on one or more volumes",
    |cli, flags| show(cli, flags, &[Kind::Volume]),
)
.flags(&[INSPECT_FORMAT])
.arity(Arity::AtLeast(1));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

const TYPES: &[&str] = &[
    "config",
    "container",
    "image",
    "network",
    "node",
    "plugin",
    "secret",
    "service",
    "task",
    "volume",
];

fn any(cli: &Cli, flags: &Parsed) -> Outcome {
    let kinds: &[Kind] = match flags.given("type") {
        None | Some("") => &[Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
        Some("container") => &[Kind::Container],
        Some("image") => &[Kind::Image],
        Some("network") => &[Kind::Network],
        Some("volume") => &[Kind::Volume],
        Some(known) if TYPES.contains(&known) => &[],
        Some(unknown) => {
            let all: Vec<String> = TYPES.iter().map(|name| format!("{name:?}")).collect();
            return Err(Failure::new(format!(
                "unknown type: {unknown:?}: must be one of {}",
                all.join(", ")
            )));
        }
    };
    show(cli, flags, kinds)
}

impl Kind {
    fn request(self, name: &str, flags: &Parsed) -> Request {
        let name_segment = query::segment(name);
        match self {
            Self::Container => Request::get(format!("{}/json", container_path(name)))
                .query(Query::new().with_if("size", flags.on("size"))),
            Self::Image => Request::get(format!("/images/{}/json", query::path(name))),
            Self::Network => Request::get(format!("/networks/{name_segment}"))
                .query(Query::new().with_if("verbose", flags.on("verbose"))),
            Self::Volume => Request::get(format!("/volumes/{name_segment}")),
        }
    }
}

/// Asks for each name as each kind in turn until one is there.
async fn look(
    client: &Client,
    name: &str,
    flags: &Parsed,
    kinds: &[Kind],
) -> Result<Vec<u8>, Failure> {
    for kind in kinds {
        match client.send(kind.request(name, flags)).await {
            Ok(response) => return Ok(response.bytes().await?),
            // What cannot be a name of this kind may be one of another.
            Err(error) if kinds.len() > 1 && may_be_another(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::new(format!("Error: No such object: {name}")))
}

fn may_be_another(error: &Error) -> bool {
    error
        .status()
        .is_some_and(|status| matches!(status.as_u16(), 400 | 404))
}

fn show(cli: &Cli, flags: &Parsed, kinds: &[Kind]) -> Outcome {
    let format = flags.text("format");
    let template =
        match format {
            "" | "json" => None,
            text => Some(template::parse(text).map_err(|error| {
                Failure::new(format!("template parsing error: {error}")).code(64)
            })?),
        };
    let (found, problem) = cli.block_on(async {
        let client = cli.client()?;
        let mut found = Vec::new();
        let mut problems = Vec::new();
        for name in &flags.args {
            match look(client, name, flags, kinds).await {
                Ok(bytes) => found.push(bytes),
                Err(failure) if failure.unreachable => return Err(failure),
                Err(failure) => problems.push(failure.message),
            }
        }
        Ok((found, problems))
    })?;
    let mut mistake = None;
    let mut out = String::new();
    match &template {
        None => {
            let objects: Vec<String> = found
                .iter()
                .map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned())
                .collect();
            let all = format!("[{}]", objects.join(","));
            out = match format {
                "json" => all,
                _ => indent_json(&all),
            };
            out.push('\n');
        }
        Some(template) => {
            for bytes in &found {
                let value = Value::from_json(bytes).map_err(|error| {
                    Failure::new(format!("unable to read inspect data: {error}"))
                })?;
                match template.render_json(&value) {
                    Ok(text) => out.push_str(&text),
                    Err(error) => mistake = Some(Failure::from(error)),
                }
                out.push('\n');
                if mistake.is_some() {
                    break;
                }
            }
            if found.is_empty() {
                out.push('\n');
            }
        }
    }
    print(out)?;
    match (mistake, problem.is_empty()) {
        (Some(mistake), _) => Err(mistake),
        (None, false) => Err(Failure::new(problem.join("\n"))),
        (None, true) => Ok(0),
    }
}
