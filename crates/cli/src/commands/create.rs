//! `create`: a container that does not run yet.

use std::io::Write;
use std::path::Path;

use berth_docker::container::{CreateRequest, CreateResponse};
use berth_docker_client::{Client, Query, Request};

use crate::cli::{Cli, print, warn};
use crate::command::{Arity, Command};
use crate::create;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;

use super::pull;

pub const CREATE: Command = Command::leaf(
    "create",
    "IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    run,
)
.flags(create::flags::CREATE)
.arity(Arity::AtLeast(1))
.flags_first()
.also(&["container create", "create"]);

fn run(cli: &Cli, flags: &Parsed) -> Outcome {
    // Unlike `run`, the daemon's refusals are shown as they are.
    let client = cli.client()?;
    let request = request(cli, client, flags).map_err(|failure| explain(cli, "create", failure))?;
    cli.block_on(async {
        let id = submit(cli, client, flags, request).await?;
        print(format!("{id}\n"))?;
        Ok(0)
    })
}

/// The words that `run` and `create` put around an error.
pub fn explain(cli: &Cli, command: &str, failure: Failure) -> Failure {
    if failure.message.is_empty() || failure.unreachable {
        let code = if failure.unreachable {
            DAEMON_FAILED
        } else {
            failure.code
        };
        return failure.code(code);
    }
    let code = match failure.code {
        1 => DAEMON_FAILED,
        code => code,
    };
    let program = &cli.program;
    Failure::new(format!(
        "{program}: {}\n\nRun '{program} {command} --help' for more information",
        failure.message
    ))
    .code(code)
}

/// The exit code of a container that could not be made or started.
pub const DAEMON_FAILED: u8 = 125;

/// What the flags and the configuration ask for.
pub fn request(cli: &Cli, client: &Client, flags: &Parsed) -> Result<CreateRequest, Failure> {
    let pull = flags.text("pull");
    if !matches!(pull, "always" | "missing" | "never") {
        return Err(Failure::new(format!(
            "invalid pull option: '{pull}': must be one of \"always\", \"missing\" or \"never\""
        )));
    }
    let mut request = create::plan(flags, &*cli.environment).map_err(Failure::new)?;
    // Proxies come from docker's configuration file; what the user sets wins.
    let proxies = cli.config().proxies(&client.host().to_string());
    if !proxies.is_empty() {
        let env = request.config.env.get_or_insert_default();
        for (name, value) in proxies {
            let set = |have: &String| have.split('=').next() == Some(name.as_str());
            if !env.iter().any(set) {
                env.push(format!("{name}={value}"));
            }
        }
    }
    Ok(request)
}

/// Creates the container, pulling its image when it is not there, and returns its id.
pub async fn submit(
    cli: &Cli,
    client: &Client,
    flags: &Parsed,
    mut request: CreateRequest,
) -> Result<String, Failure> {
    let id_file = flags
        .given("cidfile")
        .filter(|path| !path.is_empty())
        .map(IdFile::create)
        .transpose()?;
    let version = client.version().await?;
    if berth_docker_client::client::is_older(version, "1.44") {
        // The address was the container's then, not its endpoint's.
        let mac = flags.text("mac-address");
        request.config.mac_address = mac.to_owned();
    }
    let platform = flags.given("platform").map(str::to_owned);
    let platform = platform.or_else(|| cli.env("DOCKER_DEFAULT_PLATFORM"));
    let image = request.config.image.clone();
    let mode = flags.text("pull");
    if mode == "always" {
        pull::for_container(cli, client, &image, platform.as_deref(), flags.on("quiet")).await?;
    }
    let query = Query::new()
        .with_some("name", flags.given("name").filter(|name| !name.is_empty()))
        .with_some("platform", platform.as_deref());
    let attempt = || -> Result<Request, Failure> {
        Ok(Request::post("/containers/create")
            .query(query.clone())
            .json(&request)?)
    };
    let response: CreateResponse = match client.call(attempt()?).await {
        Err(error) if error.is_not_found() && mode == "missing" && is_about_image(&error) => {
            warn(format!(
                "Unable to find image '{}' locally",
                pull::familiar(&image)
            ));
            pull::for_container(cli, client, &image, platform.as_deref(), flags.on("quiet"))
                .await?;
            client.call(attempt()?).await?
        }
        result => result?,
    };
    for warning in &response.warnings {
        warn(format!("WARNING: {warning}"));
    }
    if let Some(file) = id_file {
        file.write(&response.id)?;
    }
    Ok(response.id)
}

/// A container that another one is to share something with may be missing too.
fn is_about_image(error: &berth_docker_client::Error) -> bool {
    let message = error.daemon_message().unwrap_or_default();
    message.to_lowercase().contains("no such image")
}

/// The file of `--cidfile`: made before the container, gone again without one.
struct IdFile<'a> {
    path: &'a str,
    file: std::fs::File,
    written: bool,
}

impl<'a> IdFile<'a> {
    fn create(path: &'a str) -> Result<Self, Failure> {
        if Path::new(path).exists() {
            return Err(Failure::new(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            )));
        }
        let file = std::fs::File::create(path).map_err(|error| {
            let why = create::os_words(&error);
            Failure::new(format!(
                "failed to create the container ID file: open {path}: {why}"
            ))
        })?;
        Ok(Self {
            path,
            file,
            written: false,
        })
    }

    fn write(mut self, id: &str) -> Result<(), Failure> {
        self.file.write_all(id.as_bytes())?;
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile<'_> {
    fn drop(&mut self) {
        if !self.written {
            std::fs::remove_file(self.path).ok();
        }
    }
}
