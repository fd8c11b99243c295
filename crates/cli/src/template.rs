//! Go's text templates, as far as `--format` needs them: fields, pipelines, variables,
//! `if`, `range`, `with`, the comparison and text functions of Go and those that docker adds.
//!
//! The crate `gtmpl` was judged and left out: it formats values its own way, has no trimming of
//! unknown fields, and its errors are not the words that docker prints.

mod eval;
mod functions;
mod lex;
mod parse;
mod value;

pub use eval::Missing;
pub use value::{Method, Object, Value};

/// A parsed template.
#[derive(Debug, Clone)]
pub struct Template {
    nodes: Vec<parse::Node>,
}

/// What is wrong with a template, or with applying it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template: {0}")]
pub struct Error(pub String);

/// Reads a template.
pub fn parse(text: &str) -> Result<Template, Error> {
    let tokens = lex::lex(text)?;
    Ok(Template {
        nodes: parse::parse(tokens)?,
    })
}

impl Template {
    /// The text for one value.
    pub fn render(&self, data: &Value, missing: Missing) -> Result<String, Error> {
        eval::render(&self.nodes, data, missing, false)
    }

    /// The text for the daemon's own JSON, as docker's `inspect` makes it: first by the names of
    /// Go's fields, then by those of the JSON.
    pub fn render_json(&self, data: &Value) -> Result<String, Error> {
        self.render(data, Missing::Typed)
            .or_else(|_| self.render(data, Missing::Error))
    }

    /// The text where functions that change their argument leave it alone, so that a row of
    /// headers stays one (`{{upper .Names}}` has the header `NAMES`).
    pub fn render_header(&self, data: &Value) -> Result<String, Error> {
        eval::render(&self.nodes, data, Missing::NoValue, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, expect: &str) {
        let data = Value::from_json(
            br#"{"Name":"/web","State":{"Running":true,"Pid":42},"Tags":["a","b"],
                "Labels":{"k.x":"v","a":"1"},"Size":1.5,"Empty":[],"Null":null,"Mounts":[{"A":1},{"A":2}]}"#,
        )
        .unwrap();
        let rendered = parse(template)
            .and_then(|parsed| parsed.render(&data, Missing::NoValue))
            .unwrap_or_else(|error| format!("! {error}"));
        assert_eq!(rendered, expect, "{template}");
    }

    #[test]
    fn fields_and_pipelines() {
        check("{{.Name}} {{ .State.Pid }}", "/web 42");
        check("{{.State.Running}}", "true");
        check("{{json .Tags}} {{.Tags | json}}", r#"["a","b"] ["a","b"]"#);
        check("{{json .State}}", r#"{"Running":true,"Pid":42}"#);
        check("{{.Tags}} {{.Labels}}", "[a b] map[a:1 k.x:v]");
        check(r#"{{index .Labels "k.x"}} {{index .Tags 1}}"#, "v b");
        check("{{len .Tags}} {{.Size}} {{.Null}}", "2 1.5 <no value>");
        check("{{.Labels.nosuch}}", "<no value>");
        check("{{(index .Mounts 1).A}}", "2");
        check("{{$.Name}}", "/web");
        check("{{slice .Name 1}}", "web");
    }

    #[test]
    fn control_flow() {
        check("{{range .Tags}}<{{.}}>{{end}}", "<a><b>");
        check("{{range $i, $t := .Tags}}{{$i}}={{$t}};{{end}}", "0=a;1=b;");
        check(
            "{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}",
            "a=1;k.x=v;",
        );
        check("{{range .Empty}}x{{else}}none{{end}}", "none");
        check(
            "{{if and .State.Running (eq .State.Pid 42)}}y{{else}}n{{end}}",
            "y",
        );
        check("{{if .Empty}}a{{else if not .Null}}b{{else}}c{{end}}", "b");
        check("{{with .State}}{{.Pid}}{{end}}", "42");
        check("{{$x := .Name}}{{with .State}}{{$x}}{{end}}", "/web");
        check("a {{- .State.Pid -}} b", "a42b");
        check("{{/* nothing */}}x", "x");
        check(
            "{{range .Tags}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}",
            "a",
        );
    }

    #[test]
    fn functions() {
        check(
            r#"{{join .Tags ","}} {{upper .Name}} {{title "ab cd"}}"#,
            "a,b /WEB Ab Cd",
        );
        check(
            r#"{{printf "%5d|%-4s|%q|%v|%.1f" 3 "x" "y" .Tags 2.55}}"#,
            "    3|x   |\"y\"|[a b]|2.5",
        );
        check(
            r#"{{split "a:b" ":"}} {{pad "x" 1 2}}|{{truncate "hello" 2}}"#,
            "[a b]  x  |he",
        );
        check(r#"{{println "a" 1}}"#, "a 1\n");
        check(
            "{{or .Null \"d\"}} {{ne 1 2}} {{lt 1 2}} {{ge 1 2}}",
            "d true true false",
        );
        check(r#"{{"a\tb"}}{{`c`}}"#, "a\tbc");
    }

    #[test]
    fn inspected_json_is_read_by_gos_names_or_by_its_own() {
        let data = Value::from_json(br#"{"Id":"1","Labels":{"a":"b"},"State":{}}"#).unwrap();
        let check = |template: &str, expect: &str| {
            let text = parse(template).and_then(|parsed| parsed.render_json(&data));
            assert_eq!(text.unwrap_or_else(|error| error.to_string()), expect);
        };
        check("{{.ID}} {{.Labels.x}}", "1 <no value>");
        check("{{.Id}} {{.Labels.a}}", "1 b");
        check(
            "{{.Id}} {{.ID}}",
            "template: :1:10: executing \"\" at <.ID>: map has no entry for key \"ID\"",
        );
        check(
            "{{.State.X}}",
            "template: :1:8: executing \"\" at <.State.X>: map has no entry for key \"X\"",
        );
    }

    #[test]
    fn mistakes_are_told_in_gos_words() {
        check("{{.Name", "! template: :1: unclosed action");
        check("{{if .Name}}", "! template: :1: unexpected EOF");
        check(
            "{{nosuch .}}",
            "! template: :1: function \"nosuch\" not defined",
        );
        check("{{end}}", "! template: :1: unexpected {{end}}");
    }
}
