//! Images from and to archives: `load`, `save`, `import`.

use std::io::IsTerminal;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use berth_docker::stream::JsonMessage;
use berth_docker_client::{Messages, Query, Request, Response};
use tokio::io::AsyncWriteExt;

use crate::cli::{self, Cli, print};
use crate::command::{Arity, Command};
use crate::create::os_words;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};
use crate::progress::{self, Target};

use super::pull;

const PLATFORM: Flag = Flag::text("platform", "Only this platform (\"linux/amd64\")");

pub const LOAD: Command = Command::leaf(
    "load",
    "",
    "Load an image from a tar archive or STDIN",
    load,
)
.flags(&[
    Flag::text("input", "Read this file in place of STDIN").short('i'),
    PLATFORM,
    Flag::switch("quiet", "Do not show how it goes").short('q'),
])
.also(&["image load", "load"]);

pub const SAVE: Command = Command::leaf(
    "save",
    "IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    save,
)
.flags(&[
    Flag::text("output", "Write to this file in place of STDOUT").short('o'),
    PLATFORM,
])
.arity(Arity::AtLeast(1))
.also(&["image save", "save"]);

pub const IMPORT: Command = Command::leaf(
    "import",
    "file|URL|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    import,
)
.flags(&[
    Flag::list("change", "Apply a Dockerfile instruction to the image").short('c'),
    Flag::text("message", "Set the message of the commit").short('m'),
    Flag::text("platform", "The platform, of servers that know several"),
])
.arity(Arity::AtLeast(1))
.also(&["image import", "import"]);

/// The content type of archives.
pub const TAR: &str = "application/x-tar";

pub fn open(path: &str) -> Result<tokio::fs::File, Failure> {
    match std::fs::File::open(path) {
        Ok(file) => Ok(tokio::fs::File::from_std(file)),
        Err(error) => Err(Failure::new(format!("open {path}: {}", os_words(&error)))),
    }
}

/// A platform as the API takes it.
fn platform_json(text: &str) -> String {
    let mut parts = text.split('/');
    let mut platform = serde_json::Map::new();
    for key in ["os", "architecture", "variant"] {
        if let Some(part) = parts.next() {
            platform.insert(key.to_owned(), part.into());
        }
    }
    serde_json::Value::Object(platform).to_string()
}

fn load(cli: &Cli, flags: &Parsed) -> Outcome {
    let file = flags.given("input");
    if file.is_none() && cli::stdin_is_terminal() {
        return Err(Failure::new(
            "requested load from stdin, but stdin is empty",
        ));
    }
    let quiet = flags.on("quiet") || !cli::stdout_is_terminal();
    let query = Query::new()
        .with("quiet", if quiet { "1" } else { "0" })
        .with_some("platform", flags.given("platform").map(platform_json));
    cli.block_on(async {
        let request = Request::post("/images/load").query(query);
        let request = match file {
            Some(path) => request.stream(TAR, open(path)?),
            None => request.stream(TAR, tokio::io::stdin()),
        };
        let response = cli.client()?.send(request).await?;
        let json = response
            .headers
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        if json {
            show(response.messages()).await?;
            return Ok(0);
        }
        let bytes = response.bytes().await?;
        print(bytes)?;
        Ok(0)
    })
}

async fn show(messages: Messages<JsonMessage>) -> Result<(), Failure> {
    progress::show(messages, Target::Stdout, |_| ()).await
}

fn save(cli: &Cli, flags: &Parsed) -> Outcome {
    let output = flags.given("output");
    if output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::new(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    check_target(output, "save image")?;
    cli.block_on(async {
        let mut query = Query::new();
        for name in &flags.args {
            query.push("names", name);
        }
        if let Some(platform) = flags.given("platform") {
            query.push("platform", &platform_json(platform));
        }
        let request = Request::get("/images/get").query(query);
        let response = cli.client()?.send(request).await?;
        write_out(response, output, "save image").await?;
        Ok(0)
    })
}

/// Before anything is asked for: whether its answer can be written to a file of this name.
pub fn check_target(output: Option<&str>, what: &str) -> Result<(), Failure> {
    let Some(path) = output.map(Path::new) else {
        return Ok(());
    };
    let refused = |reason: &str| Failure::new(format!("failed to {what}: {reason}"));
    let kind = match std::fs::metadata(path) {
        Ok(found) => found.file_type(),
        Err(_) => {
            let directory = path.parent().filter(|parent| *parent != Path::new(""));
            let Some((directory, Err(error))) =
                directory.map(|parent| (parent.display(), std::fs::metadata(parent)))
            else {
                return Ok(());
            };
            let error = os_words(&error);
            return Err(refused(&format!(
                "invalid output path: stat {directory}: {error}"
            )));
        }
    };
    match () {
        () if kind.is_dir() => Err(refused("cannot write to a directory")),
        () if kind.is_char_device() => Err(refused("cannot write to a character device file")),
        () if kind.is_block_device() => Err(refused("cannot write to a block device file")),
        () if kind.is_fifo() => Err(refused("cannot write to a named pipe (FIFO)")),
        () if kind.is_socket() => Err(refused("cannot write to a socket")),
        () => Ok(()),
    }
}

/// Writes an answer's body to a file, or to standard output. A new file takes the old one's place
/// when it is whole.
pub async fn write_out(
    mut response: Response,
    output: Option<&str>,
    what: &str,
) -> Result<(), Failure> {
    let Some(path) = output else {
        while let Some(chunk) = response.chunk().await? {
            print(&chunk)?;
        }
        return Ok(());
    };
    let partial = format!("{path}.partial-{}", std::process::id());
    let failed = |error: std::io::Error| {
        Failure::new(format!(
            "failed to {what}: open {path}: {}",
            os_words(&error)
        ))
    };
    let result = async {
        let mut file = tokio::fs::File::create(&partial).await.map_err(failed)?;
        while let Some(chunk) = response.chunk().await? {
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        std::fs::rename(&partial, path).map_err(failed)
    }
    .await;
    if result.is_err() {
        std::fs::remove_file(&partial).ok();
    }
    result
}

fn import(cli: &Cli, flags: &Parsed) -> Outcome {
    let source = flags.arg(0);
    let mut query = Query::new();
    // Only to refuse a bad name before anything is sent.
    let target = flags.args.get(1);
    target.map(|name| pull::parse(name)).transpose()?;
    let is_url = source.starts_with("http://") || source.starts_with("https://");
    query.push("fromSrc", if is_url { source } else { "-" });
    if let Some(target) = target {
        query.push("repo", target);
    }
    query = query
        .with_some("message", flags.given("message"))
        .with_some("platform", flags.given("platform"));
    for change in flags.list("change") {
        query.push("changes", change);
    }
    cli.block_on(async {
        let request = Request::post("/images/create").query(query);
        let request = match source {
            _ if is_url => request,
            "-" => request.stream(TAR, tokio::io::stdin()),
            path => request.stream(TAR, open(path)?),
        };
        show(cli.client()?.send(request).await?.messages()).await?;
        Ok(0)
    })
}
