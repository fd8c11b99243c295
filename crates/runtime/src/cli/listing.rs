//! What there is: `state`, `list`, `ps`.

use std::fmt::Write as _;
use std::process::Command;

use super::state::{self, Shown, State};
use super::{Call, io, print};
use crate::error::{Error, io_words};

/// The table's columns are at least this wide, with this much space between them.
const COLUMN_WIDTH: usize = 12;
const COLUMN_GAP: usize = 3;

pub(super) fn state(call: &Call<'_>) -> Result<(), Error> {
    let state = State::load(&call.root, call.args.id()?)?;
    let mut value = json(&state.shown())?;
    // The owner is for the list.
    if let Some(fields) = value.as_object_mut() {
        fields.remove("owner");
    }
    print(&format!("{value:#}\n"));
    Ok(())
}

fn json(shown: &impl serde::Serialize) -> Result<serde_json::Value, Error> {
    serde_json::to_value(shown).map_err(|e| Error::internal(format!("state: {e}")))
}

pub(super) fn list(call: &Call<'_>) -> Result<(), Error> {
    let ids = match state::ids(&call.root) {
        Ok(ids) => ids,
        // Nothing was ever made.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && call.has_default_root => {
            Vec::new()
        }
        Err(error) => return Err(io(&format!("open {}", call.root.display()))(error)),
    };
    let mut states = Vec::new();
    for id in ids {
        match State::load(&call.root, &id) {
            Ok(state) => states.push(state),
            // One that is made or deleted meanwhile is not listed.
            Err(error) => eprintln!("load container {id}: {error}"),
        }
    }
    if call.args.is_set("quiet") {
        let ids: String = states
            .iter()
            .map(|state| format!("{}\n", state.id))
            .collect();
        print(&ids);
        return Ok(());
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut shown = Vec::new();
    for state in &states {
        let mut one = state.shown();
        one.owner = owner(&passwd, state.owner()?);
        shown.push(one);
    }
    match format(call)? {
        Format::Table => print(&table(&shown)),
        Format::Json if shown.is_empty() => print("null\n"),
        Format::Json => print(&format!("{}\n", json(&shown)?)),
    }
    Ok(())
}

enum Format {
    Table,
    Json,
}

fn format(call: &Call<'_>) -> Result<Format, Error> {
    match call.args.value("format").unwrap_or("table") {
        "table" => Ok(Format::Table),
        "json" => Ok(Format::Json),
        _ => Err(Error::invalid("invalid format option")),
    }
}

fn owner(passwd: &str, uid: u32) -> String {
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| format!("#{uid}"), str::to_owned)
}

fn table(shown: &[Shown<'_>]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(shown.iter().map(|one| {
        [
            one.id.to_owned(),
            one.pid.to_string(),
            one.status.clone(),
            one.bundle.display().to_string(),
            one.created.to_string(),
            one.owner.clone(),
        ]
    }));
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max();
        (longest.unwrap_or(0) + COLUMN_GAP).max(COLUMN_WIDTH)
    };
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string does not fail.
            let _ = write!(text, "{cell:<width$}");
        }
        let _ = writeln!(text, "{}", row[5]);
    }
    text
}

pub(super) fn ps(call: &Call<'_>) -> Result<(), Error> {
    let state = State::load(&call.root, call.args.id()?)?;
    let pids = state
        .cgroup()?
        .pids()
        .map_err(io("unable to get all container pids"))?;
    if let Format::Json = format(call)? {
        print(&format!("{}\n", json(&pids)?));
        return Ok(());
    }
    let options = call.args.operands().get(1..).unwrap_or_default();
    let standard = ["-ef".to_owned()];
    let output = Command::new("ps")
        .args(if options.is_empty() {
            &standard
        } else {
            options
        })
        .output()
        .map_err(|e| Error::internal(format!("exec: \"ps\": {}", io_words(&e))))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code().unwrap_or(-1);
        return Err(Error::invalid(format!("exit status {code}: {text}{said}")));
    }
    print(&of_container(&text, &pids)?);
    Ok(())
}

/// The head of ps's table and the lines of these processes.
fn of_container(text: &str, pids: &[i32]) -> Result<String, Error> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head
        .split_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::invalid("couldn't find PID field in ps output"))?;
    let mut kept = format!("{head}\n");
    for line in lines.filter(|line| !line.is_empty()) {
        let field = line.split_whitespace().nth(column).unwrap_or_default();
        let pid: i32 = field
            .parse()
            .map_err(|_| Error::internal(format!("unable to parse pid: {field:?}")))?;
        if pids.contains(&pid) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ps_shows_the_head_and_the_containers_lines() {
        let text = "UID  PID CMD\nroot 1 init\nroot 22 sh\nroot 3 x\n";
        assert_eq!(
            of_container(text, &[22, 3]).unwrap(),
            "UID  PID CMD\nroot 22 sh\nroot 3 x\n"
        );
        let error = of_container("CMD\ninit\n", &[1]).unwrap_err();
        assert_eq!(error.message, "couldn't find PID field in ps output");
    }

    #[test]
    fn an_owner_without_an_account_is_a_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nu:x:5:5::/:/bin/sh\n";
        assert_eq!(owner(passwd, 5), "u");
        assert_eq!(owner(passwd, 6), "#6");
    }

    #[test]
    fn an_empty_list_is_a_head() {
        assert_eq!(
            table(&[]),
            "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
        );
    }
}
