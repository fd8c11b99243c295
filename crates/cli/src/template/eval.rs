//! A tree applied to a value.

use super::Error;
use super::functions;
use super::parse::{Base, Branch, Node, Operand, Pipeline};
use super::value::{Object, Value};

/// How fields are looked up, and what an absent one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// `<no value>`.
    NoValue,
    /// As docker first tries it, on its structs: a mistake, but `<no value>` below those names
    /// that stand for maps. The fields have Go's names: `ID`, not `Id`.
    Typed,
    /// As docker then tries it, on the JSON itself: a mistake everywhere.
    Error,
}

/// Names of the API under which any key may or may not be.
const MAPS: &[&str] = &[
    "Labels",
    "Networks",
    "Ports",
    "PortBindings",
    "Volumes",
    "ExposedPorts",
    "Sysctls",
    "Tmpfs",
    "StorageOpt",
    "Annotations",
    "Options",
    "DriverOpts",
    "Config",
    "Data",
    "Containers",
    "Status",
    "Metadata",
    "Endpoints",
];

pub fn render(
    nodes: &[Node],
    data: &Value,
    missing: Missing,
    header: bool,
) -> Result<String, Error> {
    let mut scope = Scope {
        out: String::new(),
        variables: vec![(String::new(), data.clone())],
        missing,
        header,
    };
    scope.nodes(nodes, data)?;
    Ok(scope.out)
}

struct Scope {
    out: String,
    /// Innermost last; the first is `$`.
    variables: Vec<(String, Value)>,
    missing: Missing,
    header: bool,
}

/// How a list of nodes ended.
enum Flow {
    Done,
    Break,
    Continue,
}

impl Scope {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Error> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.out.push_str(text);
                    Flow::Done
                }
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&value.to_string());
                    }
                    Flow::Done
                }
                Node::If(branch) => self.branch(branch, dot, false)?,
                Node::With(branch) => self.branch(branch, dot, true)?,
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if !matches!(flow, Flow::Done) {
                return Ok(flow);
            }
        }
        Ok(Flow::Done)
    }

    fn branch(&mut self, branch: &Branch, dot: &Value, rebind: bool) -> Result<Flow, Error> {
        let depth = self.variables.len();
        let value = self.pipeline(&branch.condition, dot)?;
        let flow = match (value.is_true(), rebind) {
            (true, true) => self.nodes(&branch.then, &value),
            (true, false) => self.nodes(&branch.then, dot),
            (false, _) => self.nodes(&branch.otherwise, dot),
        };
        self.variables.truncate(depth);
        flow
    }

    fn range(&mut self, branch: &Branch, dot: &Value) -> Result<Flow, Error> {
        let depth = self.variables.len();
        let names = &branch.condition.variables;
        let unnamed = Pipeline {
            variables: Vec::new(),
            ..branch.condition.clone()
        };
        let items: Vec<(Value, Value)> = match self.pipeline(&unnamed, dot)? {
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| (int(index), item.clone()))
                .collect(),
            Value::Object(object) => {
                let mut fields = object.fields.clone();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                fields
                    .into_iter()
                    .map(|(key, value)| (Value::text(key), value))
                    .collect()
            }
            Value::Int(count) => (0..count).map(|i| (Value::Int(i), Value::Int(i))).collect(),
            Value::Nil | Value::NilPointer => Vec::new(),
            other => return Err(Error(format!(":1: range can't iterate over {other}"))),
        };
        if items.is_empty() {
            return self.nodes(&branch.otherwise, dot);
        }
        for (key, value) in items {
            match names.as_slice() {
                [] => {}
                [one] => self.variables.push((one.clone(), value.clone())),
                [first, second, ..] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), value.clone()));
                }
            }
            let flow = self.nodes(&branch.then, &value)?;
            self.variables.truncate(depth);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(Flow::Done)
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Error> {
        let mut result: Option<Value> = None;
        for command in &pipeline.commands {
            result = Some(self.command(command, dot, result)?);
        }
        let value = result.unwrap_or_default();
        for name in &pipeline.variables {
            if pipeline.declares {
                self.variables.push((name.clone(), value.clone()));
            } else {
                let place = self.variables.iter_mut().rev().find(|(n, _)| n == name);
                let (_, place) =
                    place.ok_or_else(|| Error(format!(":1: undefined variable \"${name}\"")))?;
                *place = value.clone();
            }
        }
        Ok(value)
    }

    fn command(
        &mut self,
        command: &[Operand],
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value, Error> {
        let Some((first, rest)) = command.split_first() else {
            return Ok(Value::Nil);
        };
        if let Base::Function(name) = &first.base {
            let mut arguments = Vec::new();
            for operand in rest {
                let value = self.operand(operand, dot)?;
                // Like Go, these two look no further than they need.
                let decided = match name.as_str() {
                    "and" => !value.is_true(),
                    "or" => value.is_true(),
                    _ => false,
                };
                arguments.push(value);
                if decided {
                    break;
                }
            }
            arguments.extend(piped);
            let value = functions::call(name, &arguments, self.header)?;
            return self.fields(value, first);
        }
        let arguments: Vec<Value> = rest
            .iter()
            .map(|operand| self.operand(operand, dot))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .chain(piped)
            .collect();
        if let Some(argument) = arguments.first() {
            return self.method(first, argument, dot);
        }
        self.operand(first, dot)
    }

    /// `.Label "name"`.
    fn method(&mut self, operand: &Operand, argument: &Value, dot: &Value) -> Result<Value, Error> {
        let not_a_method = |name: &str| {
            Error(format!(
                ":1:2: executing \"\" at <.{name}>: {name} is not a method but has arguments"
            ))
        };
        let Some((name, path)) = operand.fields.split_last() else {
            return Err(Error(":1: can't give argument to non-function".to_owned()));
        };
        let base = Operand {
            base: operand.base.clone(),
            fields: path.to_vec(),
            column: operand.column,
        };
        let receiver = self.operand(&base, dot)?;
        let Value::Object(object) = receiver else {
            return Err(not_a_method(name));
        };
        let method = object.methods.iter().find(|(known, _)| known == name);
        let (_, method) = method.ok_or_else(|| not_a_method(name))?;
        Ok(Value::text(method(&argument.to_string())))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, Error> {
        let base = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(n, _)| n == name);
                let found =
                    found.ok_or_else(|| Error(format!(":1: undefined variable \"${name}\"")));
                found?.1.clone()
            }
            Base::Function(name) => functions::call(name, &[], self.header)?,
            Base::Text(text) => Value::text(text),
            Base::Int(number) => Value::Int(*number),
            Base::Float(number) => Value::Float(*number),
            Base::Bool(value) => Value::Bool(*value),
            Base::Nil => Value::Nil,
            Base::Nested(pipeline) => self.pipeline(pipeline, dot)?,
        };
        self.fields(base, operand)
    }

    fn fields(&self, mut value: Value, operand: &Operand) -> Result<Value, Error> {
        let mut parent = "";
        for (depth, name) in operand.fields.iter().enumerate() {
            let mistake = |what: String| {
                let path = operand.fields[..=depth].join(".");
                Err(Error(format!(
                    ":1:{}: executing \"\" at <.{path}>: {what}",
                    operand.column
                )))
            };
            let lenient = match self.missing {
                Missing::NoValue => true,
                Missing::Typed => MAPS.contains(&parent),
                Missing::Error => false,
            };
            value = match &value {
                Value::Object(object) => match (self.look_up(object, name), object.type_name) {
                    (Some(found), _) => found.clone(),
                    (None, Some(type_name)) => {
                        return mistake(format!("can't evaluate field {name} in type {type_name}"));
                    }
                    (None, None) if lenient => Value::Nil,
                    (None, None) => return mistake(format!("map has no entry for key {name:?}")),
                },
                Value::Nil if lenient => Value::Nil,
                Value::Nil => {
                    return mistake(format!("nil pointer evaluating interface {{}}.{name}"));
                }
                other => {
                    let type_name = go_type(other);
                    return mistake(format!("can't evaluate field {name} in type {type_name}"));
                }
            };
            parent = name;
        }
        Ok(value)
    }

    fn look_up<'a>(&self, object: &'a Object, name: &str) -> Option<&'a Value> {
        match (self.missing, name) {
            (Missing::Typed, "Id") => None,
            (Missing::Typed, "ID") => object.get("ID").or_else(|| object.get("Id")),
            (_, name) => object.get(name),
        }
    }
}

fn int(index: usize) -> Value {
    Value::Int(i64::try_from(index).unwrap_or(i64::MAX))
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Nil | Value::NilPointer | Value::Object(_) => "interface {}",
    }
}
