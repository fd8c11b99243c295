//! What a registry demands in `WWW-Authenticate` (RFC 9110 section 11.6.1, RFC 6750 section 3).

use std::collections::HashMap;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// One demand: a scheme in lower case, and its parameters with their names in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    pub scheme: String,
    pub parameters: HashMap<String, String>,
}

impl Challenge {
    /// All demands of a response's headers, in order.
    pub fn all(headers: &HeaderMap) -> Vec<Self> {
        headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse)
            .collect()
    }

    /// A parameter, empty when it is missing.
    pub fn get(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }
}

/// Parses one header's value, which may hold several challenges. What cannot be read ends it.
fn parse(value: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = value.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let length = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        if word.is_empty() {
            break;
        }
        let after = after.trim_start();
        rest = match (after.strip_prefix('='), found.last_mut()) {
            (Some(after), Some(challenge)) => {
                let Some((content, after)) = value_of(after.trim_start()) else {
                    break;
                };
                let name = word.to_ascii_lowercase();
                challenge.parameters.entry(name).or_insert(content);
                after
            }
            (Some(_), None) => break,
            (None, _) => {
                found.push(Challenge {
                    scheme: word.to_ascii_lowercase(),
                    parameters: HashMap::new(),
                });
                after
            }
        };
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    found
}

/// A token or a quoted string at the beginning of `text`, and what follows it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let length = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (token, after) = text.split_at(length);
        return Some((token.to_owned(), after));
    };
    let mut content = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((content, &quoted[at + 1..])),
            '\\' => content.push(characters.next()?.1),
            other => content.push(other),
        }
    }
    None
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expect: &[(&str, &[(&str, &str)])]) {
        let expect: Vec<Challenge> = expect
            .iter()
            .map(|(scheme, parameters)| Challenge {
                scheme: (*scheme).to_owned(),
                parameters: parameters
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            })
            .collect();
        assert_eq!(parse(value), expect, "{value}");
    }

    #[test]
    fn challenges_are_taken_apart() {
        check(
            r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a:pull,push""#,
            &[(
                "bearer",
                &[
                    ("realm", "https://auth.example/token"),
                    ("service", "reg"),
                    ("scope", "repository:a:pull,push"),
                ],
            )],
        );
        check(
            r#"Basic realm="a \"b\"" , BEARER Realm=x, error = "y""#,
            &[
                ("basic", &[("realm", "a \"b\"")]),
                ("bearer", &[("realm", "x"), ("error", "y")]),
            ],
        );
        check("Negotiate", &[("negotiate", &[])]);
        check("", &[]);
        check(r#"Basic realm="unclosed"#, &[("basic", &[])]);
        check("=x", &[]);
    }
}
