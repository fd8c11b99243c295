//! Variables and labels, from flags and from files.

use std::collections::BTreeMap;

use super::{Error, Lookup, os_words};

/// The variables of the files, then those of the flags. A name without a value takes the
/// caller's, and is passed on bare when the caller has none, which removes the image's.
pub fn variables(files: &[String], given: &[String], lookup: Lookup) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for file in files {
        for line in lines(file)? {
            let (name, value) = match line.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (line.as_str(), None),
            };
            let name = name.trim_start();
            if name.is_empty() {
                return Err(format!("no variable name on line '{line}'"));
            }
            if name.contains(char::is_whitespace) {
                return Err(format!("variable '{name}' contains whitespaces"));
            }
            match value {
                Some(value) => all.push(format!("{name}={value}")),
                // A file names only what is there.
                None => all.extend(lookup(name).map(|value| format!("{name}={value}"))),
            }
        }
    }
    for variable in given {
        all.push(match variable.contains('=') {
            true => variable.clone(),
            false => match lookup(variable) {
                Some(value) => format!("{variable}={value}"),
                None => variable.clone(),
            },
        });
    }
    Ok(all)
}

/// Labels of the files, overridden by those of the flags.
pub fn labels(files: &[String], given: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let mut all = Vec::new();
    for file in files {
        all.extend(lines(file)?);
    }
    all.extend_from_slice(given);
    Ok(super::pairs(&all))
}

/// The lines that are neither empty nor comments.
fn lines(file: &str) -> Result<Vec<String>, Error> {
    let bytes =
        std::fs::read(file).map_err(|error| format!("open {file}: {}", os_words(&error)))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| format!("env file {file} contains invalid utf8 bytes"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

pub fn check_variable(text: &str) -> Result<(), String> {
    match text.split('=').next() {
        Some("") | None => Err(format!("invalid environment variable: {text}")),
        Some(_) => Ok(()),
    }
}

pub fn check_label(text: &str) -> Result<(), String> {
    match text.split('=').next() {
        Some("") | None => Err(format!("invalid label '{text}': empty name")),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_values_take_the_callers() {
        let lookup = |name: &str| (name == "SET").then(|| "yes".to_owned());
        let given = ["A=1".to_owned(), "SET".to_owned(), "UNSET".to_owned()];
        assert_eq!(
            variables(&[], &given, &lookup).unwrap(),
            ["A=1", "SET=yes", "UNSET"]
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = variables(&["/nosuch".to_owned()], &[], &|_| None).unwrap_err();
        assert_eq!(error, "open /nosuch: no such file or directory");
    }
}
