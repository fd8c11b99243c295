//! Text and `{{ }}` to tokens.

use super::Error;

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Text(String),
    /// One `{{ }}` with its words, its line, and where it began.
    Action(Vec<Word>, usize),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// `.Name`, also after another word without a space in between, and its column.
    Field(String, usize),
    Dot,
    Variable(String),
    Name(String),
    Text(String),
    Int(i64),
    Float(f64),
    Pipe,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    Open,
    Close,
    /// White space ends a chain of fields.
    Space,
}

pub fn lex(text: &str) -> Result<Vec<Token>, Error> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    let mut trim_start = false;
    loop {
        let (mut plain, action) = match rest.split_once("{{") {
            Some((plain, action)) => (plain, Some(action)),
            None => (rest, None),
        };
        line += plain.matches('\n').count();
        if trim_start {
            plain = plain.trim_start();
        }
        let Some(mut action) = action else {
            push_text(&mut tokens, plain);
            return Ok(tokens);
        };
        if let Some(after) = action
            .strip_prefix('-')
            .filter(|after| after.starts_with(|c: char| c.is_ascii_whitespace()))
        {
            plain = plain.trim_end();
            action = after;
        }
        push_text(&mut tokens, plain);
        let (words, after, trim) = lex_action(action, line, text)?;
        line += action[..action.len() - after.len()].matches('\n').count();
        if let Some(words) = words {
            tokens.push(Token::Action(words, line));
        }
        trim_start = trim;
        rest = after;
    }
}

fn push_text(tokens: &mut Vec<Token>, text: &str) {
    if !text.is_empty() {
        tokens.push(Token::Text(text.to_owned()));
    }
}

type Lexed<'a> = (Option<Vec<Word>>, &'a str, bool);

/// The words up to `}}`, what follows, and whether white space there is trimmed.
fn lex_action<'a>(text: &'a str, line: usize, whole: &str) -> Result<Lexed<'a>, Error> {
    let unclosed = || Error(format!(":{line}: unclosed action"));
    let trimmed = text.trim_start();
    if let Some(comment) = trimmed.strip_prefix("/*") {
        let (_, after) = comment
            .split_once("*/")
            .ok_or_else(|| Error(format!(":{line}: unclosed comment")))?;
        let (after, trim) = close(after)
            .ok_or_else(|| Error(format!(":{line}: comment ends before closing delimiter")))?;
        return Ok((None, after, trim));
    }
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        if let Some((after, trim)) = close(rest) {
            return Ok((Some(words), after, trim));
        }
        let first = rest.chars().next().ok_or_else(unclosed)?;
        let (word, used) = match first {
            c if c.is_whitespace() => (Word::Space, c.len_utf8()),
            '|' => (Word::Pipe, 1),
            ',' => (Word::Comma, 1),
            '(' => (Word::Open, 1),
            ')' => (Word::Close, 1),
            '=' => (Word::Assign, 1),
            ':' if rest.starts_with(":=") => (Word::Declare, 2),
            '"' => quoted(rest, line)?,
            '`' => {
                let end = rest[1..]
                    .find('`')
                    .ok_or_else(|| Error(format!(":{line}: unterminated raw quoted string")))?;
                (Word::Text(rest[1..=end].to_owned()), end + 2)
            }
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let name = identifier(&rest[1..]);
                match name {
                    "" => (Word::Dot, 1),
                    name => {
                        let at = column(whole, rest);
                        (Word::Field(name.to_owned(), at), 1 + name.len())
                    }
                }
            }
            '$' => {
                let name = identifier(&rest[1..]);
                (Word::Variable(name.to_owned()), 1 + name.len())
            }
            c if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => number(rest, line)?,
            '\'' => character(rest, line)?,
            c if c.is_alphabetic() || c == '_' => {
                let name = identifier(rest);
                (Word::Name(name.to_owned()), name.len())
            }
            c => {
                return Err(Error(format!(":{line}: unexpected {c:?} in command")));
            }
        };
        words.push(word);
        rest = &rest[used..];
    }
}

/// `}}` or ` -}}`, with what follows.
fn close(text: &str) -> Option<(&str, bool)> {
    if let Some(after) = text.strip_prefix("}}") {
        return Some((after, false));
    }
    let trimmed = text.trim_start();
    if trimmed.len() < text.len() {
        return trimmed.strip_prefix("-}}").map(|after| (after, true));
    }
    None
}

/// Where in its line the rest of the text begins.
fn column(whole: &str, rest: &str) -> usize {
    let before = &whole[..whole.len() - rest.len()];
    before.len() - before.rfind('\n').map_or(0, |newline| newline + 1)
}

fn identifier(text: &str) -> &str {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    &text[..end]
}

fn quoted(text: &str, line: usize) -> Result<(Word, usize), Error> {
    let unterminated = || Error(format!(":{line}: unterminated quoted string"));
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Word::Text(value), at + 1)),
            '\n' => return Err(unterminated()),
            '\\' => {
                let (_, escaped) = chars.next().ok_or_else(unterminated)?;
                value.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'a' => '\x07',
                    'b' => '\x08',
                    'f' => '\x0c',
                    'v' => '\x0b',
                    'x' | 'u' | 'U' => {
                        let digits = match escaped {
                            'x' => 2,
                            'u' => 4,
                            _ => 8,
                        };
                        let code: String = chars
                            .by_ref()
                            .take(digits)
                            .map(|(_, digit)| digit)
                            .collect();
                        u32::from_str_radix(&code, 16)
                            .ok()
                            .and_then(char::from_u32)
                            .ok_or_else(|| Error(format!(":{line}: invalid syntax")))?
                    }
                    other => other,
                });
            }
            other => value.push(other),
        }
    }
    Err(unterminated())
}

fn character(text: &str, line: usize) -> Result<(Word, usize), Error> {
    let mut chars = text.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some(c), Some('\'')) if c != '\\' => {
            Ok((Word::Int(i64::from(u32::from(c))), 2 + c.len_utf8()))
        }
        _ => Err(Error(format!(
            ":{line}: malformed character constant: {text}"
        ))),
    }
}

fn number(text: &str, line: usize) -> Result<(Word, usize), Error> {
    let end = text
        .char_indices()
        .skip(1)
        .find(|(_, c)| !(c.is_ascii_alphanumeric() || *c == '.'))
        .map_or(text.len(), |(at, _)| at);
    let digits = &text[..end];
    let word = match digits.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok().map(Word::Int),
        None => digits
            .parse()
            .map(Word::Int)
            .or_else(|_| digits.parse().map(Word::Float))
            .ok(),
    };
    match word {
        Some(word) => Ok((word, end)),
        None => Err(Error(format!(":{line}: bad number syntax: {digits:?}"))),
    }
}
