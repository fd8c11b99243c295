//! `events`: what happens, as it happens.

use berth_base::Timestamp;
use berth_docker_client::{Query, Request};

use crate::cli::{Cli, print};
use crate::command::Command;
use crate::failure::Outcome;
use crate::flags::{Flag, Parsed};
use crate::template::{self, Value};

use super::logs::time;
use super::{FILTER, INSPECT_FORMAT, filters, filters_query};

pub const EVENTS: Command =
    Command::leaf("events", "", "Get real time events from the server", run)
        .flags(&[
            FILTER,
            Flag::text("format", INSPECT_FORMAT.help),
            Flag::text("since", "Begin with the events of this time"),
            Flag::text("until", "End at this time"),
        ])
        .also(&["system events", "events"]);

fn run(cli: &Cli, flags: &Parsed) -> Outcome {
    let template = match flags.text("format") {
        "" => None,
        "json" => Some(template::parse("{{json .}}")?),
        text => Some(template::parse(text).map_err(|error| {
            crate::failure::Failure::new(format!("Error parsing format: {error}")).code(64)
        })?),
    };
    let query = Query::new()
        .with_some("since", time(flags, "since")?)
        .with_some("until", time(flags, "until")?)
        .with_some("filters", filters_query(&filters(flags.list("filter"))));
    cli.block_on_until_signal(async {
        let request = Request::get("/events").query(query);
        let mut events = cli.client()?.send(request).await?.messages::<Value>();
        while let Some(event) = events.next().await? {
            match &template {
                Some(template) => print(template.render_json(&event)? + "\n")?,
                None => print(line(&event))?,
            }
        }
        Ok(0)
    })
}

/// `time type action id (name=value, ...)`.
fn line(event: &Value) -> String {
    let field = |value: &Value, name: &str| match value {
        Value::Object(object) => object.get(name).cloned().unwrap_or_default(),
        _ => Value::Nil,
    };
    let nanos = match (field(event, "timeNano"), field(event, "time")) {
        (Value::Int(nanos), _) if nanos != 0 => nanos,
        (_, Value::Int(seconds)) => seconds.saturating_mul(1_000_000_000),
        _ => 0,
    };
    let actor = field(event, "Actor");
    let mut out = format!(
        "{} {} {} {}",
        local_nanos(Timestamp(nanos)),
        field(event, "Type"),
        field(event, "Action"),
        field(&actor, "ID")
    );
    if let Value::Object(attributes) = field(&actor, "Attributes")
        && !attributes.fields.is_empty()
    {
        let mut pairs: Vec<String> = attributes
            .fields
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.sort();
        out.push_str(&format!(" ({})", pairs.join(", ")));
    }
    out.push('\n');
    out
}

/// RFC 3339 with all nine digits, in the local zone.
fn local_nanos(time: Timestamp) -> String {
    let Ok(time) = jiff::Timestamp::from_nanosecond(i128::from(time.unix_nanos())) else {
        return String::new();
    };
    let zoned = time.to_zoned(jiff::tz::TimeZone::system());
    let text = zoned.strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string();
    match text.strip_suffix("+00:00") {
        Some(text) => format!("{text}Z"),
        None => text,
    }
}
