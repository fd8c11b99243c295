//! A machine of its own for a daemon, as far as networks go, and another one beside it.

use std::process::Command;

use berth_testkit::{Daemon, run, sh};

/// A network namespace for a daemon, so that the firewall there is nobody else's, with a wire to
/// another one that stands for another host.
pub struct Island {
    host: String,
    neighbour: String,
}

impl Island {
    /// The daemon's host, as its neighbour sees it.
    pub const HERE: &str = "10.213.9.1";
    pub const HERE6: &str = "fd00:213:9::1";
    /// The neighbour.
    pub const THERE: &str = "10.213.9.2";
    pub const THERE6: &str = "fd00:213:9::2";

    pub fn new(number: u8) -> Self {
        let name = |letter| format!("bt{}{letter}{number}", std::process::id());
        let island = Self {
            host: name('h'),
            neighbour: name('n'),
        };
        let (h, n) = (&island.host, &island.neighbour);
        sh(&format!(
            "ip netns add {h}; ip netns add {n}; ip -n {h} link set lo up; ip -n {n} link set lo up
             ip -n {h} link add wire type veth peer name wire netns {n}
             ip -n {h} addr add {here}/24 dev wire; ip -n {h} link set wire up
             ip -n {h} addr add {here6}/64 dev wire nodad
             ip -n {n} addr add {there}/24 dev wire; ip -n {n} link set wire up
             ip -n {n} addr add {there6}/64 dev wire nodad
             ip -n {n} route add default via {here}; ip -n {n} route add default via {here6}",
            here = Self::HERE,
            here6 = Self::HERE6,
            there = Self::THERE,
            there6 = Self::THERE6,
        ));
        island
    }

    /// Runs a line on the daemon's host.
    pub fn on_host(&self, line: &str) -> berth_testkit::Output {
        Self::inside(&self.host, line)
    }

    pub fn on_neighbour(&self, line: &str) -> berth_testkit::Output {
        Self::inside(&self.neighbour, line)
    }

    /// What the neighbour gets by HTTP; `None` if nothing within a second.
    pub fn get(&self, address: &str, port: u16) -> Option<String> {
        let line = format!("curl -gsS -m 1 http://{address}:{port}/");
        let output = self.on_neighbour(&line);
        (output.code == 0).then(|| output.stdout.trim().to_owned())
    }

    fn inside(namespace: &str, line: &str) -> berth_testkit::Output {
        let net = format!("--net=/run/netns/{namespace}");
        run(
            Command::new("nsenter").args([&net, "bash", "-ec", line]),
            b"",
        )
    }

    /// What executes the rest of a command on the daemon's host. Not `ip netns exec`, which mounts
    /// another `/sys` without the control groups.
    pub fn under(&self) -> [String; 2] {
        let net = format!("--net=/run/netns/{}", self.host);
        ["nsenter".to_owned(), net]
    }

    pub fn daemon(&self, flags: &[&str]) -> Daemon {
        self.daemon_with(&[], flags)
    }

    /// With these variables (`NAME=VALUE`) in its environment.
    pub fn daemon_with(&self, variables: &[&str], flags: &[&str]) -> Daemon {
        let [nsenter, net] = self.under();
        let under = [&[nsenter.as_str(), &net, "env"], variables].concat();
        let daemon = Daemon::start_under(&under, crate::program(), flags);
        daemon.load("busybox");
        daemon
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        sh(&format!(
            "ip netns del {}; ip netns del {}",
            self.host, self.neighbour
        ));
    }
}
