//! Tokens to a tree.

use super::Error;
use super::functions;
use super::lex::{Token, Word};

#[derive(Debug, Clone)]
pub enum Node {
    Text(String),
    Print(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Break,
    Continue,
}

#[derive(Debug, Clone)]
pub struct Branch {
    pub condition: Pipeline,
    pub then: Vec<Node>,
    pub otherwise: Vec<Node>,
}

/// Commands, each applied to the result of the one before.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub variables: Vec<String>,
    /// Whether the variables are new.
    pub declares: bool,
    pub commands: Vec<Vec<Operand>>,
}

#[derive(Debug, Clone)]
pub struct Operand {
    pub base: Base,
    /// `.A.B` behind it.
    pub fields: Vec<String>,
    /// The column that a mistake in the fields is reported at: that of the second one, if any.
    pub column: usize,
}

#[derive(Debug, Clone)]
pub enum Base {
    Dot,
    Variable(String),
    Function(String),
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Nil,
    Nested(Pipeline),
}

pub fn parse(tokens: Vec<Token>) -> Result<Vec<Node>, Error> {
    let line = tokens
        .iter()
        .filter_map(|token| match token {
            Token::Action(_, line) => Some(*line),
            Token::Text(_) => None,
        })
        .next_back()
        .unwrap_or(1);
    let mut parser = Parser {
        tokens: tokens.into_iter(),
        line,
    };
    let (nodes, end) = parser.nodes()?;
    match end {
        Closing::Eof => Ok(nodes),
        Closing::End => Err(parser.error("unexpected {{end}}")),
        Closing::Else(_) => Err(parser.error("unexpected {{else}}")),
    }
}

struct Parser {
    tokens: std::vec::IntoIter<Token>,
    line: usize,
}

/// What ended a list of nodes.
enum Closing {
    Eof,
    End,
    /// With the words after `else`.
    Else(Vec<Word>),
}

impl Parser {
    fn error(&self, message: &str) -> Error {
        Error(format!(":{}: {message}", self.line))
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Closing), Error> {
        let mut nodes = Vec::new();
        while let Some(token) = self.tokens.next() {
            let words = match token {
                Token::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Token::Action(words, line) => {
                    self.line = line;
                    words
                }
            };
            let words = trim(words);
            let Some(Word::Name(name)) = words.first() else {
                nodes.push(Node::Print(self.pipeline(&words)?));
                continue;
            };
            let rest = trim(words[1..].to_vec());
            match name.as_str() {
                "end" => return Ok((nodes, Closing::End)),
                "else" => return Ok((nodes, Closing::Else(rest))),
                "if" => nodes.push(Node::If(self.branch(&rest, "if")?)),
                "with" => nodes.push(Node::With(self.branch(&rest, "with")?)),
                "range" => nodes.push(Node::Range(self.branch(&rest, "range")?)),
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                "define" | "template" | "block" => {
                    return Err(self.error(&format!("{{{{{name}}}}} is not supported here")));
                }
                _ => nodes.push(Node::Print(self.pipeline(&words)?)),
            }
        }
        Ok((nodes, Closing::Eof))
    }

    fn branch(&mut self, condition: &[Word], name: &str) -> Result<Branch, Error> {
        if condition.is_empty() {
            return Err(self.error(&format!("missing value for {name}")));
        }
        let condition = self.pipeline(condition)?;
        let (then, end) = self.nodes()?;
        let otherwise = match end {
            Closing::Eof => return Err(self.error("unexpected EOF")),
            Closing::End => Vec::new(),
            Closing::Else(words) if words.is_empty() => match self.nodes()? {
                (nodes, Closing::End) => nodes,
                _ => return Err(self.error("unexpected EOF")),
            },
            // `else if` and `else with` are a branch of their own, ended by the same `end`.
            Closing::Else(words) => match words.first() {
                Some(Word::Name(next)) if next == "if" || next == "with" => {
                    let next = next.clone();
                    let branch = self.branch(&trim(words[1..].to_vec()), &next)?;
                    vec![match next.as_str() {
                        "if" => Node::If(branch),
                        _ => Node::With(branch),
                    }]
                }
                _ => return Err(self.error("unexpected word in else")),
            },
        };
        Ok(Branch {
            condition,
            then,
            otherwise,
        })
    }

    fn pipeline(&self, words: &[Word]) -> Result<Pipeline, Error> {
        let mut words = words;
        let mut variables = Vec::new();
        let mut declares = false;
        // `$a, $b := ` and `$a = `
        let sign = words
            .iter()
            .position(|w| matches!(w, Word::Declare | Word::Assign));
        if let Some(sign) = sign {
            declares = words[sign] == Word::Declare;
            for word in &words[..sign] {
                match word {
                    Word::Variable(name) => variables.push(name.clone()),
                    Word::Comma | Word::Space => {}
                    _ => return Err(self.error("unexpected word before the assignment")),
                }
            }
            words = &words[sign + 1..];
        }
        let mut at = 0;
        let commands = self.commands(words, &mut at)?;
        if at < words.len() {
            return Err(self.error("unexpected right paren"));
        }
        Ok(Pipeline {
            variables,
            declares,
            commands,
        })
    }

    fn commands(&self, words: &[Word], at: &mut usize) -> Result<Vec<Vec<Operand>>, Error> {
        let mut commands = Vec::new();
        let mut command: Vec<Operand> = Vec::new();
        let mut joined = false;
        while let Some(word) = words.get(*at) {
            *at += 1;
            let base = match word {
                Word::Space => {
                    joined = false;
                    continue;
                }
                Word::Pipe => {
                    if command.is_empty() {
                        return Err(self.error("missing value for command"));
                    }
                    commands.push(std::mem::take(&mut command));
                    joined = false;
                    continue;
                }
                Word::Close => {
                    *at -= 1;
                    break;
                }
                Word::Open => {
                    let inner = self.commands(words, at)?;
                    if words.get(*at) != Some(&Word::Close) {
                        return Err(self.error("unclosed left paren"));
                    }
                    *at += 1;
                    Base::Nested(Pipeline {
                        variables: Vec::new(),
                        declares: false,
                        commands: inner,
                    })
                }
                Word::Field(name, column) => {
                    match command.last_mut().filter(|_| joined) {
                        Some(last) => {
                            last.fields.push(name.clone());
                            if last.fields.len() <= 2 {
                                last.column = *column;
                            }
                        }
                        None => command.push(Operand {
                            base: Base::Dot,
                            fields: vec![name.clone()],
                            column: *column,
                        }),
                    }
                    joined = true;
                    continue;
                }
                Word::Dot => Base::Dot,
                Word::Variable(name) => Base::Variable(name.clone()),
                Word::Name(name) => match name.as_str() {
                    "true" => Base::Bool(true),
                    "false" => Base::Bool(false),
                    "nil" => Base::Nil,
                    name if functions::exists(name) => Base::Function(name.to_owned()),
                    name => {
                        return Err(self.error(&format!("function {name:?} not defined")));
                    }
                },
                Word::Text(text) => Base::Text(text.clone()),
                Word::Int(number) => Base::Int(*number),
                Word::Float(number) => Base::Float(*number),
                Word::Comma | Word::Declare | Word::Assign => {
                    return Err(self.error("unexpected \",\" in operand"));
                }
            };
            command.push(Operand {
                base,
                fields: Vec::new(),
                column: 0,
            });
            joined = true;
        }
        if command.is_empty() {
            return Err(self.error("missing value for command"));
        }
        commands.push(command);
        Ok(commands)
    }
}

fn trim(mut words: Vec<Word>) -> Vec<Word> {
    while words.last() == Some(&Word::Space) {
        words.pop();
    }
    let start = words.iter().position(|word| *word != Word::Space);
    words.split_off(start.unwrap_or(0).min(words.len()))
}
