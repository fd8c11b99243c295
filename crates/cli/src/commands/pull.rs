//! `pull`, also on behalf of `run` and `create`.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use berth_docker::auth::AuthConfig;
use berth_docker_client::{Client, Query, Request};
use berth_oci::reference::{InvalidReference, Reference};
use http::header::{HeaderName, HeaderValue};

use crate::cli::{Cli, print};
use crate::command::{Arity, Command};
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

/// Docker Hub's key in the configuration file.
const HUB: &str = "https://index.docker.io/v1/";

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
    if let Some(auth) = credentials(cli, reference.domain())? {
        request = request.header(HeaderName::from_static("x-registry-auth"), auth);
    }
    Ok(request)
}

/// The credentials that the user has for a registry, as the daemon takes them.
fn credentials(cli: &Cli, domain: &str) -> Result<Option<HeaderValue>, Failure> {
    let key = if domain == "docker.io" { HUB } else { domain };
    let Some(encoded) = cli.config().auth(key).filter(|auth| !auth.is_empty()) else {
        return Ok(None);
    };
    let invalid = || {
        Failure::new(format!(
            "invalid credentials for {key} in the configuration"
        ))
    };
    let decoded = STANDARD.decode(encoded).map_err(|_| invalid())?;
    let decoded = String::from_utf8(decoded).map_err(|_| invalid())?;
    let (username, password) = decoded.split_once(':').ok_or_else(invalid)?;
    let auth = AuthConfig {
        username: username.to_owned(),
        password: password.trim_end_matches('\0').to_owned(),
        serveraddress: key.to_owned(),
        ..AuthConfig::default()
    };
    let json = serde_json::to_vec(&auth).map_err(|_| invalid())?;
    let mut value = HeaderValue::from_str(&URL_SAFE.encode(json)).map_err(|_| invalid())?;
    value.set_sensitive(true);
    Ok(Some(value))
}
