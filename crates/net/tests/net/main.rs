//! The network in network namespaces that the tests make: a machine in which `Net` runs, and
//! another host that is connected to it. Needs root; without it every test says so and passes.

mod machine;

mod bridges;
mod children;
mod firewall;
mod firewalld;
mod gateway_modes;
mod ipv6;
mod lifecycle;
mod many;
mod networks;
mod published;
mod reach;
mod resolver;
