//! Lists for people and for scripts: `--format` as a table, as JSON, or by a template.

use std::rc::Rc;

use berth_base::{Timestamp, duration, size};

use crate::cli;
use crate::failure::Failure;
use crate::table;
use crate::template::{self, Missing, Object, Value};

/// The shape of a list.
pub struct Listing {
    /// Docker's name of a row's type, which its message about an unknown field tells.
    pub type_name: &'static str,
    /// Fields and what stands above them.
    pub headers: &'static [(&'static str, &'static str)],
    /// The table that is shown when no other is asked for.
    pub table: &'static str,
    /// What `-q` shows.
    pub quiet: &'static str,
}

/// One line of a list.
#[derive(Default)]
pub struct Row {
    fields: Vec<(String, Value)>,
    methods: Vec<(&'static str, template::Method)>,
}

impl Row {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn text(self, field: &str, value: impl AsRef<str>) -> Self {
        self.value(field, Value::text(value))
    }

    #[must_use]
    pub fn value(mut self, field: &str, value: Value) -> Self {
        self.fields.push((field.to_owned(), value));
        self
    }

    #[must_use]
    pub fn method(mut self, name: &'static str, method: impl Fn(&str) -> String + 'static) -> Self {
        self.methods.push((name, Rc::new(method)));
        self
    }
}

impl Listing {
    /// Prints the rows as the user asked.
    pub fn print(&self, format: &str, quiet: bool, rows: Vec<Row>) -> Result<(), Failure> {
        cli::print(self.render(format, quiet, rows)?)
    }

    fn render(&self, format: &str, quiet: bool, rows: Vec<Row>) -> Result<String, Failure> {
        let format = format.trim_matches(' ');
        let (is_table, text) = match format {
            "" | "table" if quiet => (false, self.quiet),
            "" | "table" => (true, self.table),
            "json" => (false, "{{json .}}"),
            text => match text.strip_prefix("table") {
                Some(columns) => (true, columns.trim_matches(' ')),
                None => (false, text),
            },
        };
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let template = template::parse(&text)
            .map_err(|error| Failure::new(format!("failed to parse template: {error}")))?;
        let mut out = String::new();
        for row in rows {
            let data = Value::Object(Rc::new(Object {
                fields: row.fields,
                type_name: Some(self.type_name),
                methods: row.methods,
            }));
            let line = template
                .render(&data, Missing::NoValue)
                .map_err(|error| Failure::new(format!("failed to execute template: {error}")))?;
            out.push_str(&line);
            out.push('\n');
        }
        if !is_table {
            return Ok(out);
        }
        // A template of the whole row has no header.
        let header = match text.contains("json .}}") {
            true => String::new(),
            false => template.render_header(&self.header()).unwrap_or_default(),
        };
        Ok(table::align(&format!("{header}\n{out}")))
    }

    fn header(&self) -> Value {
        let label: template::Method = Rc::new(|name: &str| {
            let last = name.rsplit('.').next().unwrap_or(name);
            last.replace(['-', '_'], " ")
        });
        Value::Object(Rc::new(Object {
            fields: self
                .headers
                .iter()
                .map(|(field, header)| ((*field).to_owned(), Value::text(header)))
                .collect(),
            type_name: None,
            methods: vec![("Label", label)],
        }))
    }
}

/// `5 minutes ago` of seconds since the epoch.
pub fn ago(seconds: i64, now: Timestamp) -> String {
    let elapsed = Timestamp(seconds.saturating_mul(1_000_000_000)).elapsed_at(now);
    format!("{} ago", duration::human(elapsed))
}

/// Go's default notation of a local time: `2026-11-21 10:55:22 +0000 UTC`.
pub fn go_time(seconds: i64) -> String {
    let zone = jiff::tz::TimeZone::system();
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => time
            .to_zoned(zone)
            .strftime("%Y-%m-%d %H:%M:%S %z %Z")
            .to_string(),
        Err(_) => String::new(),
    }
}

/// `1.98MB`.
#[expect(clippy::cast_precision_loss, reason = "only three digits are shown")]
pub fn decimal_size(bytes: i64) -> String {
    size::human_decimal(bytes as f64, 3)
}

/// The first characters of a text, with an ellipsis when some are missing.
pub fn ellipsis(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(limit.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Twelve digits of an id, without the name of its algorithm.
pub fn short_id(id: &str) -> &str {
    let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
    digits.get(..12).unwrap_or(digits)
}

/// JSON with four spaces of indentation as docker prints it: the order and the numbers of the
/// daemon's own text are kept.
pub fn indent_json(text: &str) -> String {
    const STEP: &str = "    ";
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut in_text = false;
    let mut escaped = false;
    let mut previous = ' ';
    for c in text.trim().chars() {
        if in_text {
            out.push(c);
            in_text = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        if c.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(c, '}' | ']');
        if matches!(previous, '{' | '[') && !closes || previous == ',' {
            out.push('\n');
            out.push_str(&STEP.repeat(depth));
        }
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !matches!(previous, '{' | '[') {
                    out.push('\n');
                    out.push_str(&STEP.repeat(depth));
                }
            }
            '"' => in_text = true,
            _ => {}
        }
        out.push(c);
        if c == ':' {
            out.push(' ');
        }
        previous = c;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing = Listing {
        type_name: "*formatter.ThingContext",
        headers: &[("ID", "THING ID"), ("Name", "NAME")],
        table: "table {{.ID}}\t{{.Name}}",
        quiet: "{{.ID}}",
    };

    fn check(format: &str, quiet: bool, expect: &str) {
        let rows = vec![
            Row::new()
                .text("Name", "<a>")
                .text("ID", "1")
                .method("Label", |name| format!("label {name}")),
        ];
        let listing = Listing {
            table: "{{.ID}}\t{{.Name}}",
            ..LISTING
        };
        let text = listing.render(format, quiet, rows);
        assert_eq!(text.unwrap_or_else(|failure| failure.message), expect);
    }

    #[test]
    fn lists_come_in_dockers_forms() {
        check("", false, "THING ID   NAME\n1          <a>\n");
        check("table", true, "1\n");
        check("table {{upper .Name}}", false, "NAME\n<A>\n");
        check(
            "table {{.Label \"com.x-y\"}}",
            false,
            "x y\nlabel com.x-y\n",
        );
        check(
            "json",
            false,
            "{\"ID\":\"1\",\"Name\":\"\\u003ca\\u003e\"}\n",
        );
        check("{{.ID}}\\t{{json .Name}}", false, "1\t\"<a>\"\n");
        check(
            "{{.No}}",
            false,
            "failed to execute template: template: :1:2: executing \"\" at <.No>: can't evaluate field No in type *formatter.ThingContext",
        );
    }

    #[test]
    fn json_is_indented_without_being_changed() {
        assert_eq!(
            indent_json(r#"[{"b":1.50,"a":[],"c":{},"d":["x,{\"",2]}]"#),
            "[\n    {\n        \"b\": 1.50,\n        \"a\": [],\n        \"c\": {},\n        \"d\": [\n            \"x,{\\\"\",\n            2\n        ]\n    }\n]"
        );
    }
}
