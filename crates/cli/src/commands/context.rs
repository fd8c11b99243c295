//! `context`: named daemons to choose from.

use serde_json::{Value as Json, json};

use crate::cli::{Cli, DEFAULT_CONTEXT, print, warn};
use crate::command::{Arity, Command};
use crate::context::{Context, check_name};
use crate::create::mount_fields;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind, Parsed};
use crate::format::{Listing, Row};
use crate::template::{self, Value};

use super::{FORMAT, Failures, INSPECT_FORMAT};

pub const CREATE: Command = Command::leaf("create", "CONTEXT", "Create a context", create)
    .flags(&[
        Flag::text("description", "What the context is for"),
        Flag::of(
            "docker",
            Kind::Many("stringToString"),
            "The daemon (host=,ca=,cert=,key=,skip-tls-verify=,from=)",
        )
        .default("[]"),
        Flag::text("from", "Copy this context"),
    ])
    .arity(Arity::Exactly(1));

pub const INSPECT: Command = Command::leaf(
    "inspect",
    "[CONTEXT] [CONTEXT...]",
    "Display detailed information on one or more contexts",
    inspect,
)
.flags(&[INSPECT_FORMAT])
.arity(Arity::Any);

pub const LS: Command = Command::leaf("ls", "", "List contexts", list)
    .flags(&[FORMAT, Flag::switch("quiet", "Show names only").short('q')])
    .named("ls", &["list"])
    .also(&["context ls", "context list"]);

pub const RM: Command = Command::leaf(
    "rm",
    "CONTEXT [CONTEXT...]",
    "Remove one or more contexts",
    remove,
)
.flags(&[Flag::switch("force", "Remove it also while it is in use").short('f')])
.arity(Arity::AtLeast(1))
.named("rm", &["remove"])
.also(&["context rm", "context remove"]);

pub const SHOW: Command = Command::leaf(
    "show",
    "",
    "Print the name of the current context",
    |cli, _| {
        print(format!("{}\n", cli.context_name()))?;
        Ok(0)
    },
);

pub const USE: Command = Command::leaf("use", "CONTEXT", "Set the current docker context", choose)
    .arity(Arity::Exactly(1));

const LISTING: Listing = Listing {
    type_name: "*formatter.clientContextContext",
    headers: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
    ],
    table: "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
    quiet: "{{.Name}}",
};

const OVERRIDE: &str = "environment variable overrides the active context. To use a context, either set the global --context flag, or unset";

fn list(cli: &Cli, flags: &Parsed) -> Outcome {
    let current = cli.context_name();
    let row = |name: &str, description: &str, host: &str, error: &str| {
        Row::new()
            .text("Name", name)
            .text("Description", description)
            .text("DockerEndpoint", host)
            .text("Error", error)
            .value("Current", Value::Bool(name == current))
    };
    let host = cli.default_context_host();
    let mut rows = vec![(
        DEFAULT_CONTEXT.to_owned(),
        row(
            DEFAULT_CONTEXT,
            "Current DOCKER_HOST based configuration",
            &host,
            "",
        ),
    )];
    for context in cli.contexts().list() {
        let row = row(&context.name, context.description(), &context.host(), "");
        rows.push((context.name.clone(), row));
    }
    if !rows.iter().any(|(name, _)| *name == current) {
        rows.push((current.clone(), row(&current, "", "", "context not found")));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let rows = rows.into_iter().map(|(_, row)| row).collect();
    LISTING.print(flags.text("format"), flags.on("quiet"), rows)?;
    if cli.env("DOCKER_HOST").is_some() && !flags.on("quiet") {
        warn(format!(
            "Warning: DOCKER_HOST {OVERRIDE} DOCKER_HOST environment variable."
        ));
    }
    Ok(0)
}

fn create(cli: &Cli, flags: &Parsed) -> Outcome {
    let name = flags.arg(0);
    check_name(name)?;
    let store = cli.contexts();
    if store.exists(name) {
        return Err(Failure::new(format!("context {name:?} already exists")));
    }
    let mut context = match flags.given("from") {
        Some(DEFAULT_CONTEXT) => described(cli.default_context_host()),
        Some(from) => store.load(from)?,
        None => described(cli.default_context_host()),
    };
    name.clone_into(&mut context.name);
    if let Some(description) = flags.given("description") {
        context
            .metadata
            .insert("Description".to_owned(), description.into());
    }
    let mut files = Vec::new();
    let fields: Vec<String> = flags
        .list("docker")
        .iter()
        .flat_map(|text| mount_fields(text))
        .collect();
    if fields.is_empty() && !flags.changed("from") && !flags.changed("docker") {
        return Err(Failure::new("docker endpoint configuration is required"));
    }
    for field in fields {
        let Some((key, value)) = field.split_once('=') else {
            return Err(Failure::new(format!(
                "{field} must be formatted as key=value"
            )));
        };
        match key {
            "host" => {
                berth_docker_client::Host::parse(value, false).map_err(|error| {
                    Failure::new(format!("unable to create docker endpoint config: {error}"))
                })?;
                endpoint(&mut context).insert("Host".to_owned(), value.into());
            }
            "skip-tls-verify" => {
                let skip = crate::flags::parse_bool(value).unwrap_or(false);
                endpoint(&mut context).insert("SkipTLSVerify".to_owned(), skip.into());
            }
            "from" => context.endpoints = store.load(value)?.endpoints,
            "ca" | "cert" | "key" => files.push((format!("{key}.pem"), value.to_owned())),
            key => {
                return Err(Failure::new(format!("unrecognized config key: {key}")));
            }
        }
    }
    // Certificates are read first, so that a wrong path leaves nothing behind.
    let mut contents = Vec::new();
    for (file, path) in files {
        let bytes = std::fs::read(&path).map_err(|error| {
            let why = crate::create::os_words(&error);
            Failure::new(format!(
                "unable to create docker endpoint config: open {path}: {why}"
            ))
        })?;
        contents.push((file, bytes));
    }
    store.save(&context)?;
    if !contents.is_empty() {
        let dir = store.tls_dir(name).join("docker");
        std::fs::create_dir_all(&dir)?;
        for (file, bytes) in contents {
            use std::io::Write;
            crate::config::private_file(&dir.join(file))?.write_all(&bytes)?;
        }
    }
    print(format!("{name}\n"))?;
    warn(format!("Successfully created context {name:?}"));
    Ok(0)
}

fn described(host: String) -> Context {
    let endpoints = json!({ "docker": { "Host": host, "SkipTLSVerify": false } });
    Context {
        name: String::new(),
        metadata: serde_json::Map::new(),
        endpoints: match endpoints {
            Json::Object(endpoints) => endpoints,
            _ => serde_json::Map::new(),
        },
    }
}

fn endpoint(context: &mut Context) -> &mut serde_json::Map<String, Json> {
    let docker = context
        .endpoints
        .entry("docker")
        .or_insert_with(|| json!({}));
    if !docker.is_object() {
        *docker = json!({});
    }
    match docker {
        Json::Object(fields) => fields,
        _ => unreachable!("it was made an object just above"),
    }
}

fn inspect(cli: &Cli, flags: &Parsed) -> Outcome {
    let current = [cli.context_name()];
    let names = if flags.args.is_empty() {
        &current[..]
    } else {
        &flags.args
    };
    let mut found = Vec::new();
    let mut failures = Failures::default();
    for name in names {
        match details(cli, name) {
            Ok(details) => found.push(details),
            Err(failure) => failures.push(failure),
        }
    }
    match flags.text("format") {
        "" => {
            let list: Vec<&str> = found.iter().map(|details| details.get()).collect();
            let list = format!("[{}]", list.join(","));
            // As Go keeps JSON harmless within HTML.
            let list = list.replace('<', "\\u003c").replace('>', "\\u003e");
            print(crate::format::indent_json(&list) + "\n")?;
        }
        format => {
            let format = if format == "json" {
                "{{json .}}"
            } else {
                format
            };
            let template = template::parse(format)?;
            for details in &found {
                let value = Value::from_json(details.get().as_bytes())
                    .map_err(|error| Failure::new(error.to_string()))?;
                print(template.render_json(&value)? + "\n")?;
            }
        }
    }
    failures.outcome()
}

/// What is known about a context, with the fields in docker's order.
fn details(cli: &Cli, name: &str) -> Result<Box<serde_json::value::RawValue>, Failure> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Details<'a> {
        name: &'a str,
        metadata: serde_json::Map<String, Json>,
        endpoints: serde_json::Map<String, Json>,
        #[serde(rename = "TLSMaterial")]
        tls: serde_json::Map<String, Json>,
        storage: Storage,
    }
    #[derive(serde::Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Storage {
        metadata_path: String,
        #[serde(rename = "TLSPath")]
        tls_path: String,
    }
    let store = cli.contexts();
    let is_default = name == DEFAULT_CONTEXT;
    let context = match is_default {
        true => described(cli.default_context_host()),
        false => store.load(name)?,
    };
    let mut tls = serde_json::Map::new();
    let dir = store.tls_dir(name).join("docker");
    let files: Vec<&str> = ["ca.pem", "cert.pem", "key.pem"]
        .into_iter()
        .filter(|file| dir.join(file).exists())
        .collect();
    if !files.is_empty() {
        tls.insert("docker".to_owned(), json!(files));
    }
    let path = |path: std::path::PathBuf| match is_default {
        true => "<IN MEMORY>".to_owned(),
        false => path.display().to_string(),
    };
    let details = Details {
        name,
        metadata: context.metadata,
        endpoints: context.endpoints,
        tls,
        storage: Storage {
            metadata_path: path(store.meta_dir(name)),
            tls_path: path(store.tls_dir(name)),
        },
    };
    serde_json::value::to_raw_value(&details).map_err(|error| Failure::new(error.to_string()))
}

fn remove(cli: &Cli, flags: &Parsed) -> Outcome {
    let current = cli.context_name();
    let mut failures = Failures::default();
    for name in &flags.args {
        match remove_one(cli, name, &current, flags.on("force")) {
            Ok(()) => print(format!("{name}\n"))?,
            Err(failure) => failures.push(failure),
        }
    }
    failures.outcome()
}

fn remove_one(cli: &Cli, name: &str, current: &str, force: bool) -> Result<(), Failure> {
    if name == DEFAULT_CONTEXT {
        return Err(Failure::new("context \"default\" cannot be removed"));
    }
    let store = cli.contexts();
    if !store.exists(name) {
        return match force {
            true => Ok(()),
            false => Err(Failure::new(format!("context {name:?} does not exist"))),
        };
    }
    if name == current {
        if !force {
            return Err(Failure::new(format!(
                "context {name:?} is in use, set -f flag to force remove"
            )));
        }
        cli.config().clone().set("currentContext", None)?;
    }
    store.remove(name)
}

fn choose(cli: &Cli, flags: &Parsed) -> Outcome {
    let name = flags.arg(0);
    let chosen = match name {
        DEFAULT_CONTEXT => None,
        name => {
            check_name(name)?;
            cli.contexts().load(name)?;
            Some(name)
        }
    };
    let mut config = cli.config().clone();
    if config.text("currentContext") != chosen {
        config.set("currentContext", chosen)?;
    }
    print(format!("{name}\n"))?;
    warn(format!("Current context is now {name:?}"));
    if cli.env("DOCKER_HOST").is_some() {
        warn(format!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use {name:?}, either set the global --context flag, or unset DOCKER_HOST environment variable."
        ));
    }
    Ok(0)
}
