//! `version`: ours and the daemon's.

use std::fmt::Write;

use berth_docker_client::Request;
use berth_docker_client::client::MAX_VERSION;

use crate::cli::{Build, Cli, print};
use crate::command::Command;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::template::{self, Value};

use super::INSPECT_FORMAT;

pub const VERSION: Command =
    Command::leaf("version", "", "Show the Docker version information", run)
        .flags(&[INSPECT_FORMAT]);

fn run(cli: &Cli, flags: &Parsed) -> Outcome {
    let template =
        match flags.text("format") {
            "" => None,
            "json" => Some(template::parse("{{json .}}")?),
            text => Some(template::parse(text).map_err(|error| {
                Failure::new(format!("template parsing error: {error}")).code(64)
            })?),
        };
    let (api, server) = cli.block_on(async {
        let client = match cli.client() {
            Ok(client) => client,
            Err(failure) => return Ok((MAX_VERSION.to_owned(), Err(failure))),
        };
        let api = match client.version().await {
            Ok(version) => version.to_owned(),
            Err(error) => return Ok((MAX_VERSION.to_owned(), Err(error.into()))),
        };
        let server = async {
            let bytes = client.send(Request::get("/version")).await?.bytes().await?;
            Value::from_json(&bytes).map_err(|error| Failure::new(error.to_string()))
        };
        Ok((api, server.await))
    })?;
    let (server, failure) = match server {
        Ok(server) => (server, None),
        Err(failure) => (Value::Nil, Some(failure)),
    };
    let text = match template {
        Some(template) => {
            let all = Value::object(vec![
                ("Client".to_owned(), client_value(cli, &api)),
                ("Server".to_owned(), server),
            ]);
            template
                .render_json(&all)
                .map_err(|error| Failure::new(error.to_string()))?
                + "\n"
        }
        None => shown(cli, &api, &server),
    };
    print(text)?;
    match failure {
        Some(failure) => Err(failure),
        None => Ok(0),
    }
}

fn client_value(cli: &Cli, api: &str) -> Value {
    let Build {
        version,
        commit,
        time,
    } = &cli.build;
    let context = cli.context_name();
    let arch = go_arch();
    let fields = [
        ("Version", version.as_str()),
        ("ApiVersion", api),
        ("DefaultAPIVersion", MAX_VERSION),
        ("GitCommit", commit),
        ("GoVersion", ""),
        ("Os", "linux"),
        ("Arch", arch),
        ("BuildTime", time),
        ("Context", &context),
    ];
    let fields = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Value::text(value)))
        .collect();
    Value::object(fields)
}

/// The processor's name in Go, which is what the API speaks of.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn shown(cli: &Cli, api: &str, server: &Value) -> String {
    let build = &cli.build;
    let mut out = "Client:\n".to_owned();
    let api = match api {
        MAX_VERSION => MAX_VERSION.to_owned(),
        older => format!("{older} (downgraded from {MAX_VERSION})"),
    };
    let _ = writeln!(out, " Version:           {}", build.version);
    let _ = writeln!(out, " API version:       {api}");
    if !build.commit.is_empty() {
        let _ = writeln!(out, " Git commit:        {}", build.commit);
    }
    if !build.time.is_empty() {
        let _ = writeln!(out, " Built:             {}", ansi_time(&build.time));
    }
    let _ = writeln!(out, " OS/Arch:           linux/{}", go_arch());
    let _ = writeln!(out, " Context:           {}", cli.context_name());
    let Value::Object(server) = server else {
        return out;
    };
    let text = |object: &template::Object, name: &str| match object.get(name) {
        Some(Value::Text(text)) => text.to_string(),
        _ => String::new(),
    };
    let platform = match server.get("Platform") {
        Some(Value::Object(platform)) => text(platform, "Name"),
        _ => String::new(),
    };
    let _ = match platform.as_str() {
        "" => writeln!(out, "\nServer:"),
        name => writeln!(out, "\nServer: {name}"),
    };
    let components = match server.get("Components") {
        Some(Value::List(components)) => components.to_vec(),
        _ => Vec::new(),
    };
    for component in &components {
        let Value::Object(component) = component else {
            continue;
        };
        let detail = |name: &str| match component.get("Details") {
            Some(Value::Object(details)) => text(details, name),
            _ => String::new(),
        };
        let name = text(component, "Name");
        let _ = writeln!(out, " {name}:");
        let _ = writeln!(out, "  Version:          {}", text(component, "Version"));
        if name == "Engine" {
            let _ = writeln!(
                out,
                "  API version:      {} (minimum version {})",
                detail("ApiVersion"),
                detail("MinAPIVersion")
            );
            let _ = writeln!(out, "  Go version:       {}", detail("GoVersion"));
            let _ = writeln!(out, "  Git commit:       {}", detail("GitCommit"));
            let _ = writeln!(
                out,
                "  Built:            {}",
                ansi_time(&detail("BuildTime"))
            );
            let _ = writeln!(
                out,
                "  OS/Arch:          {}/{}",
                detail("Os"),
                detail("Arch")
            );
            let _ = writeln!(out, "  Experimental:     {}", detail("Experimental"));
        } else {
            let _ = writeln!(out, "  GitCommit:        {}", detail("GitCommit"));
        }
    }
    out
}

/// C's notation of a time; what is no time is left as it is.
fn ansi_time(text: &str) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => time
            .to_zoned(jiff::tz::TimeZone::UTC)
            .strftime("%a %b %e %H:%M:%S %Y")
            .to_string(),
        Err(_) => text.to_owned(),
    }
}
