//! Progress of pulls and loads: bars that move on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write;

use berth_docker::stream::{JsonMessage, ProgressDetail};
use berth_docker_client::Messages;

use crate::failure::Failure;
use crate::format::decimal_size;

/// Columns of the whole bar line beside which docker draws none.
const NARROW: usize = 110;
const BAR: usize = 50;

/// Where the lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Stdout,
    Stderr,
}

/// Shows messages until their end; the daemon's error among them becomes ours. `on_aux` sees
/// what is meant for programs.
pub async fn show(
    mut messages: Messages<JsonMessage>,
    target: Target,
    mut on_aux: impl FnMut(&serde_json::Value),
) -> Result<(), Failure> {
    let (terminal, columns) = match target {
        Target::Stdout => (crate::cli::stdout_is_terminal(), crate::cli::width()),
        Target::Stderr => (crate::cli::stderr_is_terminal(), crate::cli::width()),
    };
    let mut screen = Screen {
        lines: HashMap::new(),
        terminal,
        columns,
    };
    while let Some(message) = messages.next().await? {
        if let Some(aux) = &message.aux {
            on_aux(aux);
            if message.status.is_empty() && message.stream.is_empty() {
                continue;
            }
        }
        let text = screen.draw(&message)?;
        match target {
            Target::Stdout => crate::cli::print(text)?,
            Target::Stderr => std::io::stderr().write_all(text.as_bytes())?,
        }
    }
    Ok(())
}

struct Screen {
    /// Which line below the first one each id has.
    lines: HashMap<String, usize>,
    terminal: bool,
    columns: usize,
}

impl Screen {
    fn draw(&mut self, message: &JsonMessage) -> Result<String, Failure> {
        let detail = message.progress_detail.as_ref();
        let bar = detail
            .map(|detail| bar(detail, self.columns))
            .unwrap_or_default();
        let mut out = String::new();
        let mut up = 0;
        let moves = !message.id.is_empty() && (detail.is_some() || !message.progress.is_empty());
        if moves {
            let next = self.lines.len();
            let known = self.lines.get(&message.id).copied();
            let line = *self.lines.entry(message.id.clone()).or_insert(next);
            if known.is_none() && self.terminal {
                out.push('\n');
            }
            up = self.lines.len() - line;
            if self.terminal {
                let _ = write!(out, "\x1b[{up}A");
            }
        } else {
            self.lines.clear();
        }
        self.line(message, &bar, &mut out)?;
        if moves && self.terminal {
            let _ = write!(out, "\x1b[{up}B");
        }
        Ok(out)
    }

    fn line(&self, message: &JsonMessage, bar: &str, out: &mut String) -> Result<(), Failure> {
        if let Some(error) = &message.error_detail {
            return Err(Failure::new(error.message.clone()));
        }
        if !message.error.is_empty() {
            return Err(Failure::new(message.error.clone()));
        }
        let mut end = "";
        if self.terminal && message.stream.is_empty() && message.progress_detail.is_some() {
            out.push_str("\x1b[2K");
            end = "\r";
        } else if !bar.is_empty() {
            // A bar that cannot be redrawn says nothing.
            return Ok(());
        }
        if !message.id.is_empty() {
            let _ = write!(out, "{}: ", message.id);
        }
        if !bar.is_empty() && self.terminal {
            let _ = write!(out, "{} {bar}{end}", message.status);
        } else if !message.stream.is_empty() {
            let _ = write!(out, "{}{end}", message.stream);
        } else {
            let _ = writeln!(out, "{}{end}", message.status);
        }
        Ok(())
    }
}

/// `[=====>     ]  1.2MB/3.4MB`
fn bar(detail: &ProgressDetail, columns: usize) -> String {
    if detail.current <= 0 && detail.total <= 0 {
        return String::new();
    }
    let amount = |value: i64| match detail.units.as_str() {
        "" => decimal_size(value),
        units => format!("{value} {units}"),
    };
    let current = amount(detail.current);
    if detail.total <= 0 {
        return format!("{current:>8}");
    }
    let percent = (detail.current.saturating_mul(100) / detail.total).clamp(0, 100);
    let done = usize::try_from(percent / 2).unwrap_or(0);
    let mut out = String::new();
    if columns > NARROW {
        let left = BAR.saturating_sub(done);
        let _ = write!(out, "[{}>{}] ", "=".repeat(done), " ".repeat(left));
    }
    let _ = if detail.current > detail.total {
        write!(out, "{current:>8}")
    } else {
        write!(out, "{current:>8}/{}", amount(detail.total))
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, status: &str, current: i64, total: i64) -> JsonMessage {
        JsonMessage {
            id: id.into(),
            status: status.into(),
            progress_detail: (total > 0).then(|| ProgressDetail {
                current,
                total,
                ..ProgressDetail::default()
            }),
            ..JsonMessage::default()
        }
    }

    fn screen(terminal: bool) -> Screen {
        Screen {
            lines: HashMap::new(),
            terminal,
            columns: 120,
        }
    }

    #[test]
    fn a_file_gets_lines_without_bars() {
        let mut screen = screen(false);
        assert_eq!(screen.draw(&message("a", "Downloading", 1, 2)).unwrap(), "");
        assert_eq!(
            screen.draw(&message("a", "Pull complete", 0, 0)).unwrap(),
            "a: Pull complete\n"
        );
    }

    #[test]
    fn a_terminal_gets_bars_that_move() {
        let mut screen = screen(true);
        let half = format!("[{}>{}]", "=".repeat(25), " ".repeat(25));
        assert_eq!(
            screen
                .draw(&message("a", "Downloading", 1000, 2000))
                .unwrap(),
            format!("\n\x1b[1A\x1b[2Ka: Downloading {half}      1kB/2kB\r\x1b[1B")
        );
    }

    #[test]
    fn the_daemons_error_is_ours() {
        let message = JsonMessage {
            error: "no such manifest".into(),
            ..JsonMessage::default()
        };
        assert_eq!(
            screen(false).draw(&message).unwrap_err().message,
            "no such manifest"
        );
    }
}
