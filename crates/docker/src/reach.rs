//! Who gets to which port: an operation that Docker does not have.

use crate::json::wire;

wire! {
    /// An entry of the answer to `GET /berth/ports`.
    #[serde(rename_all = "PascalCase")]
    pub struct ReachablePort {
        /// The host's address; of a routed network, the container's.
        pub host_ip: String,
        pub host_port: u16,
        /// `tcp` or `udp`.
        pub protocol: String,
        /// `nobody`, `machine`, `network` (neighbours too, since the addresses are private) or
        /// `everybody`.
        pub from: String,
        /// `nat`, `relay` (accepted on the host and passed on), `routed`, `host` (a process of a
        /// container that has the host's network); empty of a port that somebody else has.
        pub way: String,
        /// The container's id.
        pub container_id: String,
        pub container: String,
        /// The network's name.
        pub network: String,
        /// Address and port in the container; empty where the port is not published.
        pub target: String,
        /// Where in the container the port is listened at: `everywhere`, `loopback` (so that nobody
        /// gets an answer from outside of it), `nowhere`; empty if that is not known.
        pub listening: String,
        /// The firewalls whose rules may keep some of them out.
        pub behind: Vec<String>,
        /// The firewall that keeps out all but this machine.
        pub closed_by: String,
        /// Who has the port in place of the container that wants it.
        pub held_by: String,
    }
}
