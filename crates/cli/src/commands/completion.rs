//! Completion for shells: small scripts that ask the program itself, which knows its flags, and
//! the names of what the daemon has.

use std::fmt::Write;
use std::time::Duration;

use berth_docker::container::Summary;
use berth_docker_client::{Query, Request};

use crate::cli::{Cli, print};
use crate::command::{Command, tree};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind, Order, Parsed};

pub const COMPLETION: Command = Command::group(
    "completion",
    "Generate the autocompletion script for the specified shell",
    &[
        Command::leaf("bash", "", "Generate the autocompletion script for bash", |cli, flags| {
            script(cli, flags, BASH)
        }),
        Command::leaf("fish", "", "Generate the autocompletion script for fish", |cli, flags| {
            script(cli, flags, FISH)
        }),
        Command::leaf("zsh", "", "Generate the autocompletion script for zsh", |cli, flags| {
            script(cli, flags, ZSH)
        }),
    ],
)
.long("Generate the autocompletion script for {program} for the specified shell.\nSource it, or put it where the shell looks for completions.");

/// How long a daemon may take to tell names; who presses Tab does not wait longer.
const PATIENCE: Duration = Duration::from_millis(800);

const BASH: &str = r#"# Completion of PROGRAM for bash.
_PROGRAM_complete() {
    local line piece rest prefix words=() left=${COMP_LINE:0:COMP_POINT}
    COMPREPLY=()
    # Bash breaks words at ':' and '=' too: what stands together is put together again.
    for piece in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        rest=${left#"${left%%[![:space:]]*}"}
        if [ "$rest" = "$left" ] && [ "${#words[@]}" -gt 0 ]; then
            words[${#words[@]}-1]+=$piece
        else
            words+=("$piece")
        fi
        left=${rest#"$piece"}
    done
    # What is before the last break stays as it is on the line.
    prefix=${words[${#words[@]}-1]}
    prefix=${prefix%"${prefix##*[:=]}"}
    while IFS= read -r line; do
        if [ "$line" = ":files" ]; then
            compopt -o default 2>/dev/null
        else
            line=${line%%$'\t'*}
            COMPREPLY+=("${line#"$prefix"}")
        fi
    done < <(PROGRAM __complete "${words[@]:1}" 2>/dev/null)
    local each=${COMPREPLY[0]-}
    if [ "${#COMPREPLY[@]}" -eq 1 ] && [ "${each%=}" != "$each" ]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _PROGRAM_complete PROGRAM
"#;

const ZSH: &str = r#"#compdef PROGRAM
# Completion of PROGRAM for zsh.
_PROGRAM() {
    local line files=0
    local -a found
    while IFS= read -r line; do
        if [[ $line == ":files" ]]; then
            files=1
        elif [[ $line == *$'\t'* ]]; then
            found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        else
            found+=("${line//:/\\:}")
        fi
    done < <(PROGRAM __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    (( ${#found} )) && _describe PROGRAM found
    (( files )) && _files
}
if [ "$funcstack[1]" = "_PROGRAM" ]; then
    _PROGRAM "$@"
else
    compdef _PROGRAM PROGRAM
fi
"#;

const FISH: &str = r#"# Completion of PROGRAM for fish.
function __PROGRAM_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in (PROGRAM __complete $words[2..-1] 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
"#;

fn script(cli: &Cli, _: &Parsed, template: &str) -> Outcome {
    print(template.replace("PROGRAM", &cli.program))?;
    Ok(0)
}

/// What a word may be.
#[derive(Debug, PartialEq, Eq)]
enum Candidates {
    Words(Vec<(String, &'static str)>),
    Containers { all: bool },
    Images,
    Volumes,
    Networks,
    Contexts,
    Files,
    Nothing,
}

/// The flags before the command, which tell where the daemon is; `None` when they are not complete
/// yet.
pub fn global(words: &[String]) -> Option<Parsed> {
    let (_, before) = words.split_last()?;
    crate::flags::parse(tree::GLOBAL, Order::FlagsFirst, before).ok()
}

/// Answers the scripts: candidates for the last of the words, one a line, with a tab and an
/// explanation where there is one; `:files` asks the shell for files.
pub fn complete(cli: &Cli, words: &[String]) -> u8 {
    let last = words.last().map_or("", String::as_str);
    // `--name=` stands before each value.
    let (flag, start) = match last.split_once('=') {
        Some((flag, start)) if flag.starts_with("--") => (format!("{flag}="), start),
        _ => (String::new(), last),
    };
    let out = match plan(words) {
        Candidates::Files => ":files\n".to_owned(),
        Candidates::Nothing => String::new(),
        Candidates::Words(words) => lines(&flag, start, words),
        names => {
            let found = found(cli, &names).unwrap_or_default();
            let found = found.into_iter().map(|name| (name, "")).collect();
            lines(&flag, start, found)
        }
    };
    print(out).map_or(1, |()| 0)
}

fn lines(prefix: &str, start: &str, words: Vec<(String, &'static str)>) -> String {
    let mut out = String::new();
    for (word, about) in words
        .into_iter()
        .filter(|(word, _)| word.starts_with(start))
    {
        let _ = match about.lines().next() {
            None | Some("") => writeln!(out, "{prefix}{word}"),
            Some(about) => writeln!(out, "{prefix}{word}\t{about}"),
        };
    }
    out
}

/// Pure: what the last word may be after those before it.
fn plan(words: &[String]) -> Candidates {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", &[][..]),
    };
    let mut commands = tree::ROOT;
    let mut flags = tree::GLOBAL;
    let mut command: Option<&Command> = None;
    let mut arguments = 0;
    let mut takes_value: Option<&Flag> = None;
    let mut only_arguments = false;
    for word in before {
        if takes_value.take().is_some() {
            continue;
        }
        if word.starts_with('-') && word.len() > 1 && !only_arguments {
            only_arguments = word == "--";
            takes_value = flag(flags, word);
        } else if let Some(found) = commands.iter().find(|known| known.answers_to(word)) {
            command = Some(found);
            commands = found.subcommands();
            flags = found.flags;
        } else {
            arguments += 1;
        }
    }
    if let Some(flag) = takes_value {
        return value(flag);
    }
    if last.starts_with("--")
        && !only_arguments
        && let Some((name, _)) = last.split_once('=')
    {
        return flag(flags, name).map_or(Candidates::Nothing, value);
    }
    if last.starts_with('-') && !only_arguments {
        let visible = flags.iter().filter(|flag| !flag.hidden);
        return Candidates::Words(
            visible
                .map(|flag| (format!("--{}", flag.long), flag.help))
                .collect(),
        );
    }
    match command {
        Some(command) if commands.is_empty() => argument(command, arguments),
        _ if !commands.is_empty() => {
            let visible = commands.iter().filter(|command| !command.hidden);
            Candidates::Words(
                visible
                    .map(|command| (command.name.to_owned(), command.about))
                    .collect(),
            )
        }
        _ => Candidates::Nothing,
    }
}

/// The flag whose value the next word is.
fn flag<'a>(flags: &'a [Flag], word: &str) -> Option<&'a Flag> {
    if word.contains('=') {
        return None;
    }
    let flag = match word.strip_prefix("--") {
        Some(long) => flags.iter().find(|flag| flag.long == long),
        None => {
            let last = word.chars().next_back();
            flags.iter().find(|flag| flag.short == last)
        }
    };
    flag.filter(|flag| flag.kind != Kind::Switch)
}

fn value(flag: &Flag) -> Candidates {
    let words = |words: &[&str]| {
        Candidates::Words(words.iter().map(|word| ((*word).to_owned(), "")).collect())
    };
    match flag.long {
        "network" => Candidates::Networks,
        "volumes-from" | "link" => Candidates::Containers { all: true },
        "context" | "from" => Candidates::Contexts,
        "env-file" | "label-file" | "cidfile" | "input" | "output" | "volume" | "config"
        | "tlscacert" | "tlscert" | "tlskey" | "device" => Candidates::Files,
        "restart" => words(&["always", "no", "on-failure", "unless-stopped"]),
        "pull" => words(&["always", "missing", "never"]),
        "signal" | "stop-signal" => words(&[
            "SIGHUP", "SIGINT", "SIGKILL", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2",
        ]),
        "type" => words(&["container", "image", "network", "volume"]),
        "log-driver" => words(&["json-file", "none"]),
        "attach" => words(&["stderr", "stdin", "stdout"]),
        "format" => words(&["json", "table"]),
        _ => Candidates::Nothing,
    }
}

/// What the command's usage line calls its arguments tells what they are.
fn argument(command: &Command, index: usize) -> Candidates {
    let many = command.usage.contains("...]");
    let first = command.usage.split(' ').next().unwrap_or_default();
    if index > 0 && (!many || command.order == Order::FlagsFirst) {
        return Candidates::Nothing;
    }
    let all = matches!(
        command.name,
        "start" | "rm" | "inspect" | "logs" | "rename" | "update" | "wait" | "restart" | "port"
    );
    match first {
        "CONTAINER" => Candidates::Containers { all },
        "IMAGE" | "[REPOSITORY[:TAG]]" | "SOURCE_IMAGE[:TAG]" => Candidates::Images,
        "VOLUME" => Candidates::Volumes,
        "NETWORK" => Candidates::Networks,
        "CONTEXT" | "[CONTEXT]" if command.name != "create" => Candidates::Contexts,
        "NAME|ID" => Candidates::Containers { all: true },
        "file|URL|-" => Candidates::Files,
        _ => Candidates::Nothing,
    }
}

fn found(cli: &Cli, what: &Candidates) -> Result<Vec<String>, Failure> {
    if *what == Candidates::Contexts {
        let mut names = vec![crate::cli::DEFAULT_CONTEXT.to_owned()];
        names.extend(
            cli.contexts()
                .list()
                .into_iter()
                .map(|context| context.name),
        );
        return Ok(names);
    }
    cli.block_on(async {
        let ask = ask(cli, what);
        tokio::time::timeout(PATIENCE, ask)
            .await
            .unwrap_or_else(|_| Ok(Vec::new()))
    })
}

async fn ask(cli: &Cli, what: &Candidates) -> Result<Vec<String>, Failure> {
    let client = cli.client()?;
    let names = match what {
        Candidates::Containers { all } => {
            let request = Request::get("/containers/json").query(Query::new().with_if("all", *all));
            let containers: Vec<Summary> = client.call(request).await?;
            let names = containers.into_iter().flat_map(|container| container.names);
            names
                .map(|name| name.trim_start_matches('/').to_owned())
                .collect()
        }
        Candidates::Images => {
            let images: Vec<berth_docker::image::Summary> =
                client.call(Request::get("/images/json")).await?;
            let names = images.into_iter().flat_map(|image| image.repo_tags);
            names.filter(|name| !name.starts_with("<none>")).collect()
        }
        Candidates::Volumes => {
            let list: berth_docker::volume::List = client.call(Request::get("/volumes")).await?;
            list.volumes.into_iter().map(|volume| volume.name).collect()
        }
        Candidates::Networks => {
            let networks: Vec<berth_docker::network::Network> =
                client.call(Request::get("/networks")).await?;
            networks.into_iter().map(|network| network.name).collect()
        }
        _ => Vec::new(),
    };
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: &Candidates) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        assert_eq!(plan(&words), *expect, "{line}");
    }

    fn has(line: &str, word: &str) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match plan(&words) {
            Candidates::Words(words) => assert!(words.iter().any(|(w, _)| w == word), "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_next_word_is_known_from_those_before() {
        has("", "run");
        has("image ", "ls");
        has("run --", "--publish");
        has("run --restart ", "always");
        has("run --restart=al", "always");
        check("run --network=n", &Candidates::Networks);
        check("run --rm=t", &Candidates::Nothing);
        check("run -it ", &Candidates::Images);
        check("run -e A=1 --rm ", &Candidates::Images);
        check("run debian ", &Candidates::Nothing);
        check("-H unix:///x stop ", &Candidates::Containers { all: false });
        check("rm one ", &Candidates::Containers { all: true });
        check("run -v ", &Candidates::Files);
        check("context use ", &Candidates::Contexts);
    }
}
