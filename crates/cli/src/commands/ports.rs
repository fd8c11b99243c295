//! `ports`: who gets to which port of which container. Of Berth's daemon only.

use berth_docker::reach::ReachablePort;
use berth_docker_client::Request;

use crate::cli::Cli;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::format::{Listing, Row};

use super::FORMAT;
use super::ps::join_address;

pub const PORTS: Command = Command::leaf(
    "ports",
    "[CONTAINER...]",
    "Show which ports are reachable, from where, and who holds them",
    ports,
)
.long(
    "Show which ports of containers are reachable, from where, and who holds them: published ones, \
     those of containers on the host's network, and those that a container which does not run would \
     not get. Rules of other firewalls are named, not evaluated.",
)
.flags(&[FORMAT])
.arity(Arity::AtLeast(0));

const LISTING: Listing = Listing {
    type_name: "*formatter.portContext",
    headers: &[
        ("Address", "ADDRESS"),
        ("HostIP", "HOST IP"),
        ("HostPort", "HOST PORT"),
        ("Protocol", "PROTOCOL"),
        ("From", "FROM"),
        ("By", "BY"),
        ("Container", "CONTAINER"),
        ("ContainerID", "CONTAINER ID"),
        ("Network", "NETWORK"),
        ("Target", "TO"),
        ("Listening", "LISTENING"),
        ("Behind", "BEHIND"),
        ("HeldBy", "HELD BY"),
        ("Note", "NOTE"),
    ],
    table: "{{.Address}}\t{{.From}}\t{{.By}}\t{{.Container}}\t{{.Network}}\t{{.Target}}\t{{.Note}}",
    quiet: "{{.Address}}",
};

fn ports(cli: &Cli, flags: &Parsed) -> Outcome {
    let mut ports: Vec<ReachablePort> = cli.block_on(async {
        cli.client()?
            .call(Request::get("/berth/ports"))
            .await
            .map_err(Failure::from)
    })?;
    let is_of = |port: &ReachablePort, container: &String| {
        port.container == *container || port.container_id.starts_with(container.as_str())
    };
    let unknown = |container: &&String| !ports.iter().any(|port| is_of(port, container));
    if let Some(container) = flags.args.iter().find(unknown) {
        return Err(Failure::new(format!("{container} has no ports")));
    }
    if !flags.args.is_empty() {
        ports.retain(|port| flags.args.iter().any(|container| is_of(port, container)));
    }
    let rows = ports.iter().map(row).collect();
    LISTING.print(flags.text("format"), false, rows)?;
    Ok(0)
}

fn row(port: &ReachablePort) -> Row {
    let at = join_address(&port.host_ip, &port.host_port.to_string());
    let from = match port.from.as_str() {
        "machine" => "this machine",
        "network" => "local network",
        other => other,
    };
    Row::new()
        .text("Address", format!("{at}/{}", port.protocol))
        .text("HostIP", &port.host_ip)
        .text("HostPort", port.host_port.to_string())
        .text("Protocol", &port.protocol)
        .text("From", from)
        .text("By", &port.way)
        .text("Container", &port.container)
        .text("ContainerID", &port.container_id)
        .text("Network", &port.network)
        .text("Target", &port.target)
        .text("Listening", &port.listening)
        .text("Behind", port.behind.join(", "))
        .text("HeldBy", &port.held_by)
        .text("Note", notes(port).join("; "))
}

/// What keeps an answer away, the surest first.
fn notes(port: &ReachablePort) -> Vec<String> {
    let mut notes = Vec::new();
    if !port.held_by.is_empty() {
        notes.push(format!("held by {}", port.held_by));
    } else if port.from == "nobody" {
        notes.push("no interface has this address".to_owned());
    }
    match port.listening.as_str() {
        "nowhere" => notes.push("nothing listens there".to_owned()),
        "loopback" => notes.push("listens at another address only".to_owned()),
        _ => {}
    }
    if !port.closed_by.is_empty() {
        notes.push(format!("closed by {}", port.closed_by));
    }
    if !port.behind.is_empty() {
        notes.push(format!("behind {}", port.behind.join(", ")));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(port: ReachablePort, expect: &str) {
        assert_eq!(notes(&port).join("; "), expect);
    }

    #[test]
    fn notes_say_what_keeps_an_answer_away() {
        let port = |from: &str| ReachablePort {
            from: from.to_owned(),
            listening: "everywhere".to_owned(),
            ..ReachablePort::default()
        };
        check(port("everybody"), "");
        check(port("nobody"), "no interface has this address");
        let held = ReachablePort {
            held_by: "process 7 (nginx)".to_owned(),
            ..port("nobody")
        };
        check(held, "held by process 7 (nginx)");
        let silent = ReachablePort {
            listening: "nowhere".to_owned(),
            behind: vec!["ufw".to_owned(), "firewalld".to_owned()],
            ..port("network")
        };
        check(silent, "nothing listens there; behind ufw, firewalld");
        let closed = ReachablePort {
            closed_by: "the nftables table strict".to_owned(),
            ..port("machine")
        };
        check(closed, "closed by the nftables table strict");
    }
}
