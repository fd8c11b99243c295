//! The instance's table in the kernel, kept as it was planned.
//!
//! Others flush rulesets (`systemctl restart nftables`, `ufw reload`), our table with them. A
//! thread listens to nftables' changes, and makes again what is missing, with the ports of all
//! endpoints. It looks at most once in [`PAUSE`], so that it never fights with anyone.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use berth_base::Chain;
use berth_sys::netlink::{self, Socket, conntrack};
use berth_sys::nft;
use rustix::event::PollFlags;

use super::firewalld::{self, Membership};
use super::foreign::{self, Passage};
use super::{Inputs, Ruleset};
use crate::bridge::failed;
use crate::config::{Config, Firewall};
use crate::endpoint::{Endpoint, PortBinding, Protocol};
use crate::error::Error;
use crate::relay::Connected;
use crate::watch::{Watch, Woken};

/// From a change of the ruleset to the look at it.
const PAUSE: Duration = Duration::from_millis(300);

/// The table, and the thread that keeps it. Dropping it ends the thread; the table stays, since
/// the containers do.
pub struct Live {
    table: Arc<Kept>,
    /// Missing rules in the firewalls of others, found at the start.
    pub warnings: Vec<String>,
    watch: Watch,
}

struct Kept {
    socket: Mutex<Socket>,
    ruleset: Ruleset,
    bridge: String,
    /// Put a jump into the chains of others, and a zone into firewalld.
    insert: bool,
    system_bus: PathBuf,
    /// The table of the firewalld that was spoken to last: it makes another at each reload.
    firewalld: Mutex<Option<u64>>,
    connected: Connected,
}

impl Live {
    /// Makes the table, the jump in iptables' FORWARD and the zone of firewalld. `connected` is
    /// asked for what is to be published whenever the table has to be made again.
    pub fn open(
        mut socket: Socket,
        inputs: &Inputs,
        config: &Config,
        connected: Connected,
    ) -> Result<Live, Error> {
        let instance = inputs.instance.as_str();
        let ruleset = super::plan(inputs);
        super::apply(&mut socket, &ruleset).map_err(failed("make the nftables table", instance))?;
        let insert = config.firewall == Firewall::Auto;
        let passage = Passage {
            instance,
            bridge: &inputs.bridge,
        };
        let mut warnings = foreign::open(&mut socket, passage, insert)
            .map_err(failed("let pass in the host's firewall", &inputs.bridge))?;
        warnings.extend(foreign::open_legacy(passage, insert));
        let socket = Mutex::new(socket);
        let bridge = inputs.bridge.clone();
        let table = Arc::new(Kept {
            socket,
            ruleset,
            bridge,
            insert,
            system_bus: config.system_bus.clone(),
            firewalld: Mutex::new(None),
            connected,
        });
        warnings.extend(table.ask_firewalld()?);
        let watch = watch(table.clone()).map_err(|source| Error::Netlink {
            what: "watch the host's nftables".to_owned(),
            source,
        })?;
        Ok(Live {
            table,
            warnings,
            watch,
        })
    }

    /// Publishes the ports of an endpoint that is among the connected ones already.
    pub fn publish(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let (mut socket, instance) = (self.table.lock(), self.table.ruleset.table.as_str());
        if super::publish(&mut socket, instance, endpoint).is_err() {
            // Someone flushed the table, and the thread has not seen it yet.
            self.table.repair(&mut socket)?;
        }
        for port in udp_ports(endpoint) {
            // Flows that went on before the port was published would never come here.
            let forgotten = conntrack::forget_port(&mut socket, Protocol::Udp.number(), port);
            report(forgotten);
        }
        Ok(())
    }

    /// Takes the endpoint's ports back. It is not among the connected ones any more.
    pub fn withdraw(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let (mut socket, instance) = (self.table.lock(), self.table.ruleset.table.as_str());
        if super::withdraw(&mut socket, instance, endpoint).is_err() {
            self.table.repair(&mut socket)?;
        }
        if udp_ports(endpoint).next().is_some() {
            report(conntrack::forget_answered_by(&mut socket, endpoint.ipv4));
        }
        Ok(())
    }

    /// Makes the published ports exactly those of the connected endpoints.
    pub fn publish_connected(&self) -> Result<(), Error> {
        let instance = self.table.ruleset.table.as_str();
        let mut socket = self.table.lock();
        super::publish_only(&mut socket, instance, &(self.table.connected)())
            .map_err(failed("publish ports in table", instance))
    }

    /// Removes the table and the jump. Goes on past a failure; the first is returned.
    pub fn close(self) -> Result<(), Error> {
        drop(self.watch);
        let instance = self.table.ruleset.table.as_str();
        let passage = Passage {
            instance,
            bridge: &self.table.bridge,
        };
        let mut socket = self.table.lock();
        let jump =
            foreign::close(&mut socket, passage).map_err(failed("take back the jump of", instance));
        let table = super::remove(&mut socket, instance)
            .map_err(failed("remove the nftables table", instance));
        drop(socket);
        jump.and(table).and(self.table.leave_firewalld())
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Socket> {
        self.socket
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Makes the table again, with the ports of all endpoints.
    fn repair(&self, socket: &mut Socket) -> Result<(), Error> {
        let instance = self.ruleset.table.as_str();
        super::apply(socket, &self.ruleset)
            .and_then(|()| super::publish_only(socket, instance, &(self.connected)()))
            .map_err(failed("make anew the nftables table", instance))
    }

    fn membership(&self) -> Membership<'_> {
        Membership {
            instance: &self.ruleset.table,
            bridge: &self.bridge,
        }
    }

    fn firewalld_table(&self) -> Result<Option<u64>, Error> {
        nft::table_handle(&mut self.lock(), firewalld::TABLE)
            .map_err(failed("look for the table", firewalld::TABLE.name))
    }

    /// Has firewalld let the bridge's traffic pass, if it runs here and has not been asked since
    /// it made its table. Returns what the user should know.
    fn ask_firewalld(&self) -> Result<Option<String>, Error> {
        let mut asked = self.firewalld.lock().unwrap_or_else(|e| e.into_inner());
        let table = self.firewalld_table()?;
        if table.is_none() || *asked == table {
            *asked = table;
            return Ok(None);
        }
        let passes = if self.insert {
            firewalld::open(&self.system_bus, self.membership()).map(|()| true)
        } else {
            firewalld::is_bound(&self.system_bus, self.membership())
        };
        // It may have been reloaded just now.
        *asked = self.firewalld_table()?;
        let advice = || firewalld::advice(&self.bridge);
        Ok(match passes {
            Ok(true) => None,
            Ok(false) => Some(advice()),
            Err(error) => Some(format!("{} ({})", advice(), Chain(&error))),
        })
    }

    fn leave_firewalld(&self) -> Result<(), Error> {
        if !self.insert || self.firewalld_table()?.is_none() {
            return Ok(());
        }
        let left = firewalld::close(&self.system_bus, self.membership());
        left.map_err(|source| Error::Firewalld {
            what: "take the zone away",
            source,
        })
    }

    fn look(&self) -> Result<(), Error> {
        self.repair_table()?;
        if let Some(warning) = self.ask_firewalld()? {
            tracing::warn!("{warning}");
        }
        Ok(())
    }

    fn repair_table(&self) -> Result<(), Error> {
        let instance = self.ruleset.table.as_str();
        let mut socket = self.lock();
        let whole = super::is_whole(&mut socket, &self.ruleset)
            .map_err(failed("look at the nftables table", instance))?;
        if !whole {
            tracing::warn!(
                table = instance,
                "someone took rules away; they are made again"
            );
            self.repair(&mut socket)?;
        }
        let passage = Passage {
            instance,
            bridge: &self.bridge,
        };
        if self.insert {
            foreign::open(&mut socket, passage, true)
                .map_err(failed("let pass in the host's firewall", &self.bridge))?;
        }
        Ok(())
    }
}

fn watch(table: Arc<Kept>) -> io::Result<Watch> {
    let mut changes = Socket::netfilter()?;
    changes.subscribe(nft::CHANGES)?;
    Watch::start("berth-nftables", move |stop| {
        while stop.wait(Some((changes.as_fd(), PollFlags::IN)), None) == Woken::Ready {
            // Changes come in bursts.
            if stop.wait(None, Some(PAUSE)) == Woken::Stopped || changes.drain().is_err() {
                return;
            }
            if let Err(error) = table.look() {
                tracing::warn!(%error, "keep the nftables table");
            }
        }
    })
}

fn report(result: Result<(), netlink::Error>) {
    if let Err(error) = result {
        tracing::warn!(%error, "forget tracked UDP flows");
    }
}

fn udp_ports(endpoint: &Endpoint) -> impl Iterator<Item = u16> {
    let udp = |port: &&PortBinding| port.protocol == Protocol::Udp && port.host_ip.is_ipv4();
    endpoint.ports.iter().filter(udp).map(|port| port.host_port)
}
