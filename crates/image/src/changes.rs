//! The Dockerfile instructions that `import --change` and `commit --change` take.

use berth_oci::config::{Execution, Healthcheck, Set};

/// Applies instructions in order.
///
/// # Errors
/// A sentence for the user, in the words of Docker's builder.
pub fn apply(config: &mut Execution, changes: &[String]) -> Result<(), String> {
    for change in changes {
        for line in change
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            if !line.starts_with('#') {
                instruction(config, line)?;
            }
        }
    }
    Ok(())
}

fn instruction(config: &mut Execution, line: &str) -> Result<(), String> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (name, rest) = (word.to_ascii_uppercase(), rest.trim());
    if rest.is_empty() && !matches!(name.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(format!("{name} requires at least one argument"));
    }
    match name.as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)).filter(|words| !words.is_empty()),
        "ENV" => {
            for (key, value) in pairs(&name, rest)? {
                let environment = config.env.get_or_insert_default();
                let prefix = format!("{key}=");
                environment.retain(|entry| !entry.starts_with(&prefix));
                environment.push(format!("{key}={value}"));
            }
        }
        "LABEL" => config
            .labels
            .get_or_insert_default()
            .extend(pairs(&name, rest)?),
        "EXPOSE" => {
            for word in words(rest)? {
                let ports = config.exposed_ports.get_or_insert_default();
                ports.0.extend(expose(&word)?);
            }
        }
        "VOLUME" => {
            let paths = json_words(rest).map_or_else(|| words(rest), Ok)?;
            let volumes: &mut Set = config.volumes.get_or_insert_default();
            for path in paths {
                if path.trim().is_empty() {
                    return Err("VOLUME specified can not be an empty string".to_owned());
                }
                volumes.0.insert(path);
            }
        }
        "USER" => config.user = Some(one(&name, rest)?),
        "WORKDIR" => {
            let path = unquote(rest);
            config.working_dir = Some(join(config.working_dir.as_deref(), &path));
        }
        "STOPSIGNAL" => config.stop_signal = Some(one(&name, rest)?),
        "ONBUILD" => config
            .on_build
            .get_or_insert_default()
            .push(rest.to_owned()),
        "HEALTHCHECK" => config.healthcheck = Some(health(rest)?),
        _ => {
            return Err(format!("{word} is not a valid change command"));
        }
    }
    Ok(())
}

/// The exec form is a JSON list, anything else is a shell's line.
fn command(rest: &str) -> Vec<String> {
    match json_words(rest) {
        Some(words) => words,
        None if rest.is_empty() => Vec::new(),
        None => vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.to_owned()],
    }
}

fn json_words(rest: &str) -> Option<Vec<String>> {
    rest.starts_with('[')
        .then(|| serde_json::from_str(rest).ok())
        .flatten()
}

/// `key=value ...` with quotes, or the old form `key value`.
fn pairs(name: &str, rest: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(rest)?;
    let first = words.first().map_or("", String::as_str);
    if !first.contains('=') {
        let (key, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("{name} must have two arguments"))?;
        return Ok(vec![(key.to_owned(), unquote(value.trim()))]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(format!("{name} names can not be blank")),
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!(
                "Syntax error - can't find = in \"{word}\". Must be of the form: name=value"
            )),
        })
        .collect()
}

/// Words separated by blanks, with quotes and backslashes as in a Dockerfile.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                let escaped = chars.next().unwrap_or('\\');
                word.get_or_insert_default().push(escaped);
            }
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("unexpected end of statement while looking for a matching quote".to_owned());
    }
    words.extend(word);
    Ok(words)
}

fn unquote(text: &str) -> String {
    words(text).map_or_else(|_| text.to_owned(), |words| words.join(" "))
}

fn one(name: &str, rest: &str) -> Result<String, String> {
    match words(rest)?.as_slice() {
        [word] => Ok(word.clone()),
        _ => Err(format!("{name} requires exactly one argument")),
    }
}

/// `80`, `80/udp`, `8000-8010`.
fn expose(word: &str) -> Result<Vec<String>, String> {
    let invalid = || format!("invalid containerPort: {word}");
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let first: u16 = first.parse().map_err(|_| invalid())?;
    let last: u16 = last.parse().map_err(|_| invalid())?;
    if first > last {
        return Err(invalid());
    }
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

fn join(base: Option<&str>, path: &str) -> String {
    let joined = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{}/{path}", base.unwrap_or("/"))
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn health(rest: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option
            .split_once(char::is_whitespace)
            .unwrap_or((option, ""));
        let (key, value) = option
            .split_once('=')
            .ok_or_else(|| format!("Missing a value on flag: {option}"))?;
        let duration = || {
            berth_base::duration::parse_go(value)
                .map(Some)
                .map_err(|_| format!("invalid duration {value:?} of HEALTHCHECK --{key}"))
        };
        match key {
            "interval" => check.interval = duration()?,
            "timeout" => check.timeout = duration()?,
            "start-period" => check.start_period = duration()?,
            "start-interval" => check.start_interval = duration()?,
            "retries" => {
                let retries = value
                    .parse()
                    .map_err(|_| format!("invalid retries {value:?}"))?;
                check.retries = Some(retries);
            }
            _ => return Err(format!("Unknown flag: {key}")),
        }
        rest = after.trim_start();
    }
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = Some(match (kind.to_ascii_uppercase().as_str(), rest.trim()) {
        ("NONE", "") => vec!["NONE".to_owned()],
        ("NONE", _) => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        ("CMD", "") => return Err("Missing command after HEALTHCHECK CMD".to_owned()),
        ("CMD", line) => match json_words(line) {
            Some(words) => [vec!["CMD".to_owned()], words].concat(),
            None => vec!["CMD-SHELL".to_owned(), line.to_owned()],
        },
        (kind, _) => {
            return Err(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)"));
        }
    });
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(changes: &[&str], expect: serde_json::Value) {
        let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
        let mut config = Execution::default();
        apply(&mut config, &changes).unwrap();
        assert_eq!(serde_json::to_value(&config).unwrap(), expect);
    }

    #[test]
    fn instructions_set_what_they_say() {
        check(
            &["CMD [\"a\", \"b c\"]", "entrypoint x y"],
            serde_json::json!({"Cmd": ["a", "b c"], "Entrypoint": ["/bin/sh", "-c", "x y"]}),
        );
        check(
            &["ENV A=1 B=\"x y\"", "ENV A 2 3", "LABEL k='v w'"],
            serde_json::json!({"Env": ["B=x y", "A=2 3"], "Labels": {"k": "v w"}}),
        );
        check(
            &["EXPOSE 80 53/udp 8000-8001", "VOLUME /a /b", "USER u:g"],
            serde_json::json!({
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}},
                "Volumes": {"/a": {}, "/b": {}}, "User": "u:g"}),
        );
        check(
            &[
                "WORKDIR /a",
                "WORKDIR b/../c",
                "STOPSIGNAL 9",
                "HEALTHCHECK --interval=5s CMD x",
            ],
            serde_json::json!({"WorkingDir": "/a/c", "StopSignal": "9",
                "Healthcheck": {"Test": ["CMD-SHELL", "x"], "Interval": 5_000_000_000i64}}),
        );
    }

    #[test]
    fn unknown_and_broken_instructions_are_refused() {
        for bad in [
            "RUN x",
            "FROM y",
            "ENV",
            "ENV A",
            "EXPOSE x",
            "EXPOSE 80/x",
            "LABEL a=\"b",
        ] {
            assert!(
                apply(&mut Execution::default(), &[bad.to_owned()]).is_err(),
                "{bad}"
            );
        }
    }
}
