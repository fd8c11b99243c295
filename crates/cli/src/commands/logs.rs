//! `logs`: what a container has written.

use berth_base::Timestamp;
use berth_docker::container::Inspect;
use berth_docker_client::{Query, Request};

use crate::cli::{Cli, print};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};
use crate::streams::Demultiplexer;

use super::run::container_path;

pub const LOGS: Command = Command::leaf("logs", "CONTAINER", "Fetch the logs of a container", run)
    .flags(&[
        Flag::switch("details", "Show attributes of the log"),
        Flag::switch("follow", "Go on with what is written from now on").short('f'),
        Flag::text(
            "since",
            "Begin at this time (\"2013-01-02T13:23:37Z\") or so long ago (\"42m\")",
        ),
        Flag::text("tail", "How many lines from the end")
            .short('n')
            .default("all"),
        Flag::switch("timestamps", "Show when a line was written").short('t'),
        Flag::text(
            "until",
            "End at this time (\"2013-01-02T13:23:37Z\") or so long ago (\"42m\")",
        ),
    ])
    .arity(Arity::Exactly(1))
    .also(&["container logs", "logs"]);

fn run(cli: &Cli, flags: &Parsed) -> Outcome {
    let query = Query::new()
        .with("stdout", "1")
        .with("stderr", "1")
        .with_if("details", flags.on("details"))
        .with_if("follow", flags.on("follow"))
        .with_if("timestamps", flags.on("timestamps"))
        .with("tail", flags.text("tail"))
        .with_some("since", time(flags, "since")?)
        .with_some("until", time(flags, "until")?);
    cli.block_on_until_signal(async {
        let client = cli.client()?;
        let path = container_path(flags.arg(0));
        // Only the container knows whether its output is in frames.
        let container: Inspect = client.call(Request::get(format!("{path}/json"))).await?;
        let tty = container.config.tty;
        let request = Request::get(format!("{}/logs", container_path(&container.id)));
        let mut response = client.send(request.query(query)).await?;
        let mut frames = Demultiplexer::new(true, true);
        while let Some(chunk) = response.chunk().await? {
            match tty {
                true => print(&chunk)?,
                false => frames.feed(&chunk)?,
            }
        }
        Ok(0)
    })
}

/// A time of a flag as the API takes it: seconds, with nanoseconds.
pub fn time(flags: &Parsed, name: &str) -> Result<Option<String>, Failure> {
    let Some(text) = flags.given(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let time = Timestamp::parse_docker(text, Timestamp::now()).map_err(|_| {
        Failure::new(format!(
            "invalid value for {name:?}: failed to parse value as time or duration: {text:?}"
        ))
    })?;
    let nanos = time.unix_nanos();
    Ok(Some(format!(
        "{}.{:09}",
        nanos.div_euclid(1_000_000_000),
        nanos.rem_euclid(1_000_000_000)
    )))
}
