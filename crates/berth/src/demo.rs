//! `berth demo`: a newcomer's first command. It needs no network, no image and no daemon, shows
//! each line that it runs with its time, and leaves the machine as it was.
//!
//! The image is made of this binary itself, which knows how to serve a page ([`server`]); the
//! lines are run by this binary's own command line against a private daemon ([`stage`]).

mod image;
mod server;
mod stage;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use stage::Stage;

/// What the image's entry point is called with.
pub const SERVER: &str = "__demo-server";

const HELP: &str = "Usage:  berth demo [--keep]

Show what berth does: a private daemon, an image, two containers, a published page.

Options:
      --keep   Leave the daemon and its containers running";

pub fn main(words: &[String]) -> ExitCode {
    let keep = match words {
        [] => false,
        [word] if word == "--keep" => true,
        [word] if word == "--help" || word == "-h" => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        [word, ..] => {
            eprintln!("unknown flag or argument: {word}\n\n{HELP}");
            return ExitCode::from(125);
        }
    };
    match perform(keep) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The program of the demo's containers.
pub fn serve(words: &[String]) -> ExitCode {
    server::main(words)
}

fn perform(keep: bool) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("containers need root: run it with sudo");
    }
    let begin = Instant::now();
    let stage = Stage::build()?;
    let outcome = stage.interruptible(play);
    if keep && outcome.is_ok() {
        stage.keep();
        return Ok(());
    }
    let left = stage.tear_down();
    outcome?;
    left.context("tidy up")?;
    println!(
        "\nAll of it, from nothing to nothing, took {:.2} s.",
        begin.elapsed().as_secs_f64()
    );
    println!(
        "Next: start the engine with `berth daemon`, and use `docker -H unix://{}` or `berth` itself.",
        crate::daemon::DEFAULT_SOCKET
    );
    Ok(())
}

fn play(stage: &Stage) -> Result<()> {
    stage.say("An image, made of this very program and a page:");
    let changes = [
        "ENTRYPOINT [\"/berth\",\"__demo-server\"]",
        "CMD [\"serve\",\"80\"]",
        "EXPOSE 80",
    ];
    let mut import = vec!["import"];
    for change in changes {
        import.extend(["--change", change]);
    }
    import.extend(["-", "demo"]);
    stage.feed(&import, image::archive()?)?;
    stage.run(&["images"])?;

    stage.say("A web server, limited, with its port published:");
    stage.run(&[
        "run",
        "-d",
        "--name",
        "web",
        "--memory",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "32",
        "-p",
        "127.0.0.1::80",
        "demo",
    ])?;
    stage.run(&["ps"])?;
    let address = stage.capture(&["port", "web", "80"])?;
    let address = address.trim();

    stage.say(&format!(
        "The page, fetched by this program from http://{address}/:"
    ));
    let page = stage.timed(&format!("GET http://{address}/"), || server::fetch(address))?;
    print!("{}", indent(&page));

    stage.say("The same namespaces as this program sees them on the host:");
    print!("{}", indent(&server::namespaces()));

    stage.say("Another container reaches the first one by its address:");
    let ip = stage.capture(&[
        "inspect",
        "--format",
        "{{.NetworkSettings.Networks.bridge.IPAddress}}",
        "web",
    ])?;
    let target = format!("{}:80", ip.trim());
    stage.run(&["run", "--rm", "--name", "visitor", "demo", "fetch", &target])?;
    stage.run(&["exec", "web", "/berth", SERVER, "limits"])?;
    stage.run(&["logs", "web"])?;
    Ok(())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
