//! Which ports are bound, for whom: what the daemon asks for, and who is in the way.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;

use rustix::event::epoll::EventFlags;

use super::{Port, Server, Source};
use crate::endpoint::{PortBinding, Protocol};
use crate::error::Holder;
use crate::relay::bind::{self, Bound};
use crate::relay::holder;
use crate::relay::protocol::{Adoption, Publication, Refusal};

impl Server {
    pub(super) fn publish(
        &mut self,
        publication: &Publication,
    ) -> Result<Vec<PortBinding>, Refusal> {
        let mut bound: Vec<Bound> = Vec::new();
        for wanted in &publication.ports {
            let port = bind::bind(wanted, &mut self.next_random);
            bound.extend(port.map_err(|refusal| self.name_holder(refusal))?);
        }
        let bindings = bound
            .iter()
            .flat_map(|bound| bound.bindings.clone())
            .collect();
        for bound in bound {
            let listens = self.listen(&publication.container_id, publication.target, bound);
            if let Err(refusal) = listens {
                self.drop_where(|id| id == publication.container_id);
                return Err(refusal);
            }
        }
        Ok(bindings)
    }

    pub(super) fn adopt(&mut self, containers: &[Adoption]) -> Vec<PortBinding> {
        let wanted: HashMap<&str, (IpAddr, HashSet<&PortBinding>)> = containers
            .iter()
            .map(|one| {
                (
                    one.container_id.as_str(),
                    (one.target, one.bindings.iter().collect()),
                )
            })
            .collect();
        let keeps = |port: &Port| {
            wanted
                .get(port.container_id.as_str())
                .is_some_and(|(target, bindings)| {
                    *target == port.target && port.bindings.iter().all(|one| bindings.contains(one))
                })
        };
        self.sources.retain(|_, source| match source {
            Source::Control(_) | Source::Daemon { .. } => true,
            Source::Tcp { port, .. } | Source::Udp { port, .. } => keeps(port),
            Source::Pair { container_id, .. } | Source::Flow { container_id, .. } => {
                wanted.contains_key(container_id.as_str())
            }
        });
        self.recount();
        let held: HashSet<PortBinding> = self
            .ports()
            .flat_map(|port| port.bindings.iter().cloned())
            .collect();
        let mut lost = Vec::new();
        for container in containers {
            let missing = container
                .bindings
                .iter()
                .filter(|binding| !held.contains(binding));
            for bindings in bind::join(missing.cloned().collect()) {
                let listens = bind::bind_all(bindings.clone()).map_err(io::Error::from);
                let listens = listens.and_then(|bound| {
                    self.listen(&container.container_id, container.target, bound)
                        .map_err(|refusal| io::Error::from_raw_os_error(refusal.errno))
                });
                if listens.is_err() {
                    lost.extend(bindings);
                }
            }
        }
        lost
    }

    fn listen(
        &mut self,
        container_id: &str,
        target: IpAddr,
        Bound { bindings, socket }: Bound,
    ) -> Result<(), Refusal> {
        let id = self.number();
        let PortBinding {
            protocol,
            host_ip,
            host_port,
            container_port,
        } = bindings[0];
        self.watch(id, &socket, EventFlags::IN)
            .map_err(|error| Refusal {
                protocol,
                host_ip,
                port: host_port,
                range: None,
                errno: error.raw_os_error().unwrap_or(libc::EIO),
                holder: None,
            })?;
        let container_id = container_id.to_owned();
        let port = Port {
            container_id,
            target,
            container_port,
            bindings,
        };
        let source = match protocol {
            Protocol::Tcp => Source::Tcp {
                port,
                listener: socket.into(),
            },
            Protocol::Udp => Source::Udp {
                port,
                listener: socket.into(),
            },
        };
        self.sources.insert(id, source);
        Ok(())
    }

    fn name_holder(&self, mut refusal: Refusal) -> Refusal {
        if refusal.errno != libc::EADDRINUSE {
            return refusal;
        }
        let Refusal {
            protocol,
            host_ip,
            port: number,
            ..
        } = refusal;
        let in_the_way = |binding: &PortBinding| {
            binding.protocol == protocol
                && binding.host_port == number
                && (holder::excludes(binding.host_ip, host_ip)
                    || holder::excludes(host_ip, binding.host_ip))
        };
        let ours = self
            .ports()
            .find(|port| port.bindings.iter().any(in_the_way));
        refusal.holder = match ours {
            Some(port) => Some(Holder::Container {
                id: port.container_id.clone(),
            }),
            None => holder::find(protocol, host_ip, number),
        };
        refusal
    }

    fn ports(&self) -> impl Iterator<Item = &Port> {
        self.sources.values().filter_map(|source| match source {
            Source::Tcp { port, .. } | Source::Udp { port, .. } => Some(port),
            _ => None,
        })
    }

    pub(super) fn drop_where(&mut self, gone: impl Fn(&str) -> bool) {
        self.sources.retain(|_, source| match source {
            Source::Control(_) | Source::Daemon { .. } => true,
            Source::Tcp { port, .. } | Source::Udp { port, .. } => !gone(&port.container_id),
            Source::Pair { container_id, .. } | Source::Flow { container_id, .. } => {
                !gone(container_id)
            }
        });
        self.recount();
    }

    pub(super) fn recount(&mut self) {
        let sources = &self.sources;
        self.flows.retain(|_, id| sources.contains_key(id));
        let pairs = sources
            .values()
            .filter(|source| matches!(source, Source::Pair { .. }));
        self.pairs = pairs.count();
    }
}
