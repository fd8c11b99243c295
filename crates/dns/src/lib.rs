//! The name server of containers: who is called what on a network, and everything else from the
//! host's servers.
//!
//! A [`Zone`] has the names of one network. A container sees the zones of its networks in order,
//! as its [`View`]. A [`Resolver`], one an instance, answers on sockets that somebody has made in
//! the container's network namespace ([`Resolver::listen`]). What no zone knows goes to the
//! servers of the view's [`Forwarder`], which keeps answers for as long as they say.
//!
//! Local names are answered by the task that reads the socket, from memory: no server elsewhere
//! delays them. What is answered is decided by pure functions ([`answer`], [`wire`], [`cache`]).
//! Docker's resolver (28.5) is the specification: <https://docs.docker.com/engine/network/#dns-services>.

mod answer;
mod cache;
mod dice;
mod forward;
mod query;
mod reply;
mod server;
mod shared;
mod upstream;
mod view;
mod wire;
mod zone;

pub use forward::{Changes, Forwarder};
pub use query::Transport;
pub use server::{Listening, Resolver, Sockets};
pub use upstream::{MakeSocket, Origin, Upstreams};
pub use view::{Membership, View};
pub use zone::Zone;
