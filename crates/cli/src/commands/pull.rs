//! `pull`, also on behalf of `run` and `create`.

use berth_docker_client::{Client, Query, Request};
use berth_oci::reference::{InvalidReference, Reference};
use http::header::HeaderName;

use crate::cli::{Cli, print};
use crate::command::{Arity, Command};
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};
use crate::progress::{self, Target};

pub const PULL: Command = Command::leaf(
    "pull",
    "NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    run,
)
.flags(&[
    Flag::switch("all-tags", "Pull all tags of the repository").short('a'),
    Flag::switch(
        "disable-content-trust",
        "Do not verify the image's signature",
    )
    .default("true"),
    Flag::text("platform", "The platform, of servers that know several"),
    Flag::switch("quiet", "Show the name only").short('q'),
])
.arity(Arity::Exactly(1))
.also(&["image pull", "pull"]);

pub fn parse(name: &str) -> Result<Reference, Failure> {
    name.parse().map_err(|error| {
        Failure::new(match error {
            // Docker tells the name that was completed.
            InvalidReference::UpperCase(path) if !path.contains('/') => {
                InvalidReference::UpperCase(format!("library/{path}")).to_string()
            }
            error => error.to_string(),
        })
    })
}

/// The name as people write it, with its tag.
pub fn familiar(name: &str) -> String {
    match name.parse::<Reference>() {
        Ok(reference) => reference.or_latest().familiar(),
        Err(_) => name.to_owned(),
    }
}

fn run(cli: &Cli, flags: &Parsed) -> Outcome {
    let named = parse(flags.arg(0))?;
    let all = flags.on("all-tags");
    if all && !named.is_name_only() {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let quiet = flags.on("quiet");
    let reference = match all {
        true => named,
        false => {
            if named.is_name_only() && !quiet {
                print("Using default tag: latest\n")?;
            }
            named.or_latest()
        }
    };
    let platform = flags.given("platform").map(str::to_owned);
    let platform = platform.or_else(|| cli.env("DOCKER_DEFAULT_PLATFORM"));
    cli.block_on(async {
        let client = cli.client()?;
        let request = request(cli, &reference, platform.as_deref())?;
        let messages = client.send(request).await?.messages();
        if quiet {
            drain(messages).await?;
        } else {
            progress::show(messages, Target::Stdout, |_| ()).await?;
        }
        print(format!("{reference}\n"))?;
        Ok(0)
    })
}

/// Pulls what a container needs; how it goes is shown on stderr, where it is in nobody's way.
pub async fn for_container(
    cli: &Cli,
    client: &Client,
    image: &str,
    platform: Option<&str>,
    quiet: bool,
) -> Result<(), Failure> {
    let reference = parse(image)?.or_latest();
    let request = request(cli, &reference, platform)?;
    let messages = client.send(request).await?.messages();
    match quiet {
        true => drain(messages).await,
        false => progress::show(messages, Target::Stderr, |_| ()).await,
    }
}

async fn drain(
    mut messages: berth_docker_client::Messages<berth_docker::stream::JsonMessage>,
) -> Result<(), Failure> {
    while let Some(message) = messages.next().await? {
        if !message.error.is_empty() {
            return Err(Failure::new(message.error));
        }
    }
    Ok(())
}

fn request(cli: &Cli, reference: &Reference, platform: Option<&str>) -> Result<Request, Failure> {
    let version = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => Some(digest.to_string()),
        (None, tag) => tag.map(str::to_owned),
    };
    let query = Query::new()
        .with("fromImage", reference.repository().to_string())
        .with_some("tag", version)
        .with_some("platform", platform);
    let mut request = Request::post("/images/create").query(query);
    if let Some(auth) = credentials::header(cli.config(), reference.domain())? {
        request = request.header(HeaderName::from_static("x-registry-auth"), auth);
    }
    Ok(request)
}
