//! The instance's tables in the kernel, kept as they were planned.
//!
//! Others flush rulesets (`systemctl restart nftables`, `ufw reload`), our tables with them. A
//! thread listens to nftables' changes, and makes again what is missing, with all networks and
//! the ports of all endpoints. It looks at most once in [`PAUSE`], so that it never fights with
//! anyone. iptables-legacy tells nobody of its changes, and is looked at now and then.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use berth_base::Chain;
use berth_sys::netlink::conntrack::{self, Tracked};
use berth_sys::netlink::{self, Socket, route};
use berth_sys::nft::{self, Family};
use rustix::event::PollFlags;

use super::firewalld::{self, Membership};
use super::foreign::{self, Passage};
use super::tracked::Forgetter;
use super::{Contents, Fill, Inputs, Obstacles, Ruleset};
use crate::bridge::{self, failed};
use crate::config::{Config, Firewall};
use crate::endpoint::{Endpoint, PortBinding, Protocol};
use crate::error::Error;
use crate::network::Network;
use crate::watch::{Watch, Woken};

/// From a change of the ruleset to the look at it.
const PAUSE: Duration = Duration::from_millis(300);

/// How often iptables-legacy is looked at where it is in use: its changes cannot be listened to.
const LEGACY_LOOK: Duration = Duration::from_secs(5);

/// All networks and connected endpoints as they are now.
pub type Present = Arc<dyn Fn() -> Contents + Send + Sync>;

/// The tables, and the thread that keeps them. Dropping it ends the thread; the tables stay,
/// since the containers do.
pub struct Live {
    table: Arc<Kept>,
    /// Missing rules in the firewalls of others, found at the start.
    pub warnings: Vec<String>,
    watch: Watch,
}

struct Kept {
    socket: Mutex<Socket>,
    forgetter: Forgetter,
    instance: String,
    /// That of IPv4, and while there is a network with IPv6 that of IPv6.
    rulesets: Mutex<Vec<Arc<Ruleset>>>,
    /// Put a jump into the chains of others, and a zone into firewalld.
    insert: bool,
    system_bus: PathBuf,
    /// The table of the firewalld that was spoken to last: it makes another at each reload.
    firewalld: Mutex<Option<u64>>,
    present: Present,
}

/// In the order of their names.
struct Bridges {
    all: Vec<String>,
    foreign: Vec<String>,
}

impl Live {
    /// Makes the table, the jump in iptables' FORWARD and the zone of firewalld, for `network`,
    /// the only one that is known yet. `present` is asked for what there is whenever the table
    /// has to be made again.
    pub fn open(
        mut socket: Socket,
        inputs: &Inputs,
        config: &Config,
        network: &Network,
        present: Present,
    ) -> Result<Live, Error> {
        let instance = inputs.instance.as_str();
        let v4 = super::plan(inputs);
        super::apply(&mut socket, &v4, Fill::Beside(network))
            .map_err(failed("make the nftables table", instance))?;
        let insert = config.firewall == Firewall::Auto;
        let forgetter = Forgetter::start().map_err(|source| Error::Netlink {
            what: "watch tracked connections".to_owned(),
            source,
        })?;
        let table = Arc::new(Kept {
            forgetter,
            socket: Mutex::new(socket),
            instance: instance.to_owned(),
            rulesets: Mutex::new(vec![Arc::new(v4)]),
            insert,
            system_bus: config.system_bus.clone(),
            firewalld: Mutex::new(None),
            present,
        });
        let bridges = table.bridges();
        let mut warnings = table.ask_foreign(&bridges)?;
        warnings.extend(foreign::open_legacy(table.passage(&bridges), insert));
        warnings.extend(table.ask_firewalld(&bridges)?);
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

    /// Makes the table of IPv6, unless it is there. With `guard` the host, which does not forward
    /// IPv6 yet, will not do so for others. Done before the first network with IPv6 is added.
    pub fn begin_v6(&self, guard: bool) -> Result<(), Error> {
        let instance = self.table.instance.as_str();
        let mut socket = self.table.lock();
        if self.table.has_v6() {
            return Ok(());
        }
        let guarded = super::is_guarded(&mut socket, Family::Ip6, instance)
            .map_err(failed("look at the nftables table", instance))?;
        let v6 = super::plan(&Inputs {
            instance: instance.to_owned(),
            family: Family::Ip6,
            guard: guard || guarded,
        });
        let contents = (self.table.present)();
        super::apply(&mut socket, &v6, Fill::Exactly(&contents))
            .map_err(failed("make the nftables table of IPv6", instance))?;
        self.table.lock_rulesets().push(Arc::new(v6));
        Ok(())
    }

    /// Removes the table of IPv6, also that of an earlier daemon. Returns whether it kept the host
    /// from forwarding for others.
    pub fn end_v6(&self) -> Result<bool, Error> {
        let instance = self.table.instance.as_str();
        let mut socket = self.table.lock();
        let guarded = super::is_guarded(&mut socket, Family::Ip6, instance)
            .map_err(failed("look at the nftables table", instance))?;
        self.table
            .lock_rulesets()
            .retain(|ruleset| ruleset.family != Family::Ip6);
        super::remove(&mut socket, Family::Ip6, instance)
            .map_err(failed("remove the nftables table of IPv6", instance))?;
        Ok(guarded)
    }

    /// Lets a network pass that is among the present ones already.
    pub fn add_network(&self, network: &Network) -> Result<(), Error> {
        self.table
            .change(|socket, ruleset| super::add_network(socket, ruleset, network))?;
        self.table.tell_others()
    }

    /// The network is not among the present ones any more. Goes on past a failure; the first is
    /// returned.
    pub fn remove_network(&self, network: &Network) -> Result<(), Error> {
        let removed = self
            .table
            .change(|socket, ruleset| super::remove_network(socket, ruleset, network));
        let names: Vec<String> = network
            .bridge()
            .map(|it| it.name.clone())
            .into_iter()
            .collect();
        let left = self.table.leave_firewalld(&names, firewalld::leave);
        removed.and(self.table.tell_others()).and(left)
    }

    /// Publishes the ports of an endpoint that is among the connected ones already.
    pub fn publish(&self, endpoint: &Endpoint) -> Result<(), Error> {
        self.table
            .change(|socket, ruleset| super::publish(socket, ruleset, endpoint))?;
        begin_flows_anew(&mut self.table.lock(), endpoint);
        Ok(())
    }

    /// What is tracked of connections to and from the endpoint, which is gone: a flow that others
    /// keep up would go to the next who has its address.
    pub fn forget(&self, endpoint: &Endpoint) {
        for address in endpoint.addresses() {
            self.table.forgetter.address(address);
        }
    }

    /// Takes the endpoint's ports back. It is not among the connected ones any more.
    pub fn withdraw(&self, endpoint: &Endpoint) -> Result<(), Error> {
        self.table
            .change(|socket, ruleset| super::withdraw(socket, ruleset, endpoint))?;
        if udp_ports(endpoint).next().is_some() {
            self.forget(endpoint);
        }
        Ok(())
    }

    /// Makes networks and published ports exactly those that are present.
    pub fn fill(&self) -> Result<(), Error> {
        let contents = (self.table.present)();
        for ruleset in self.table.rulesets() {
            super::fill(&mut self.table.lock(), &ruleset, &contents)
                .map_err(failed("fill the nftables table", &self.table.instance))?;
        }
        self.table.tell_others()
    }

    /// What stands in the way of published ports.
    pub fn obstacles(&self) -> Result<Obstacles, Error> {
        let bridges = self.table.bridges();
        let passage = self.table.passage(&bridges);
        let mut obstacles = Obstacles::find(&mut self.table.lock(), passage)
            .map_err(failed("look at the firewalls of", "the host"))?;
        if self.table.firewalld_table()?.is_some() {
            let membership = self.table.membership(&bridges.all);
            let unbound = firewalld::unbound(&self.table.system_bus, membership);
            // One that does not answer is in the way all the same; its table says so.
            if unbound.is_ok_and(|unbound| !unbound.is_empty()) {
                obstacles.firewalld_closes();
            }
        }
        Ok(obstacles)
    }

    /// Removes the tables and the jump. Goes on past a failure; the first is returned.
    pub fn close(self) -> Result<(), Error> {
        drop(self.watch);
        let instance = self.table.instance.as_str();
        let bridges = self.table.bridges();
        let passage = self.table.passage(&bridges);
        let mut socket = self.table.lock();
        let jump =
            foreign::close(&mut socket, passage).map_err(failed("take back the jump of", instance));
        let table = super::remove(&mut socket, Family::Ip, instance)
            .map_err(failed("remove the nftables table", instance));
        drop(socket);
        let left = self.table.leave_firewalld(&bridges.all, firewalld::close);
        jump.and(table).and(left)
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Socket> {
        self.socket
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn bridges(&self) -> Bridges {
        let present = (self.present)();
        let all = present.networks.iter().filter_map(Network::bridge);
        let mut bridges = Bridges {
            all: all.map(|bridge| bridge.name.clone()).collect(),
            foreign: present.foreign_bridges,
        };
        bridges.all.sort();
        bridges.foreign.sort();
        bridges
    }

    fn lock_rulesets(&self) -> MutexGuard<'_, Vec<Arc<Ruleset>>> {
        self.rulesets
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn rulesets(&self) -> Vec<Arc<Ruleset>> {
        self.lock_rulesets().clone()
    }

    fn has_v6(&self) -> bool {
        let rulesets = self.lock_rulesets();
        rulesets.iter().any(|ruleset| ruleset.family == Family::Ip6)
    }

    /// Changes each table; one that someone flushed, which the thread has not seen yet, is made
    /// again with all there is, the change among it.
    fn change(
        &self,
        change: impl Fn(&mut Socket, &Ruleset) -> Result<(), netlink::Error>,
    ) -> Result<(), Error> {
        let mut socket = self.lock();
        for ruleset in self.rulesets() {
            if change(&mut socket, &ruleset).is_err() {
                self.repair(&mut socket, &ruleset)?;
            }
        }
        Ok(())
    }

    /// Makes the table again, with all networks and the ports of all endpoints.
    fn repair(&self, socket: &mut Socket, ruleset: &Ruleset) -> Result<(), Error> {
        let contents = (self.present)();
        super::apply(socket, ruleset, Fill::Exactly(&contents))
            .map_err(failed("make anew the nftables table", &self.instance))?;
        // What began while there were no rules goes through the relay.
        for endpoint in &contents.endpoints {
            begin_flows_anew(socket, endpoint);
        }
        Ok(())
    }

    fn passage<'a>(&'a self, bridges: &'a Bridges) -> Passage<'a> {
        Passage {
            instance: &self.instance,
            group: bridge::group(&self.instance),
            bridges: &bridges.all,
            beside: &bridges.foreign,
            v6: self.has_v6(),
        }
    }

    /// The firewalls of others learn which bridges there are now.
    fn tell_others(&self) -> Result<(), Error> {
        if !self.insert {
            return Ok(());
        }
        let bridges = self.bridges();
        self.ask_foreign(&bridges)?;
        let legacy = foreign::open_legacy(self.passage(&bridges), true);
        *self.firewalld.lock().unwrap_or_else(|e| e.into_inner()) = None;
        for warning in legacy.into_iter().chain(self.ask_firewalld(&bridges)?) {
            tracing::warn!("{warning}");
        }
        Ok(())
    }

    /// Returns what the user should know.
    fn ask_foreign(&self, bridges: &Bridges) -> Result<Vec<String>, Error> {
        foreign::open(&mut self.lock(), self.passage(bridges), self.insert)
            .map_err(failed("let pass in the host's firewall", &self.instance))
    }

    fn membership<'a>(&'a self, bridges: &'a [String]) -> Membership<'a> {
        Membership {
            instance: &self.instance,
            bridges,
        }
    }

    fn firewalld_table(&self) -> Result<Option<u64>, Error> {
        nft::table_handle(&mut self.lock(), firewalld::TABLE)
            .map_err(failed("look for the table", firewalld::TABLE.name))
    }

    /// Has firewalld let the bridges' traffic pass, if it runs here and has not been asked since
    /// it made its table. Returns what the user should know.
    fn ask_firewalld(&self, bridges: &Bridges) -> Result<Vec<String>, Error> {
        let mut asked = self.firewalld.lock().unwrap_or_else(|e| e.into_inner());
        let table = self.firewalld_table()?;
        if table.is_none() || *asked == table {
            *asked = table;
            return Ok(Vec::new());
        }
        let membership = self.membership(&bridges.all);
        let unbound = if self.insert {
            firewalld::open(&self.system_bus, membership).map(|()| Vec::new())
        } else {
            firewalld::unbound(&self.system_bus, membership)
        };
        let warning = match unbound {
            Ok(unbound) if unbound.is_empty() => None,
            Ok(unbound) => Some(firewalld::advice(&unbound)),
            Err(error) => {
                let advice = firewalld::advice(&bridges.all);
                Some(format!("{advice} ({})", Chain(&error)))
            }
        };
        // It may have been reloaded just now.
        *asked = self.firewalld_table()?;
        Ok(warning.into_iter().collect())
    }

    fn leave_firewalld(
        &self,
        bridges: &[String],
        leave: impl FnOnce(&std::path::Path, Membership<'_>) -> Result<(), berth_sys::dbus::Error>,
    ) -> Result<(), Error> {
        if !self.insert || self.firewalld_table()?.is_none() {
            return Ok(());
        }
        let left = leave(&self.system_bus, self.membership(bridges));
        left.map_err(|source| Error::Firewalld {
            what: "take the zone away",
            source,
        })
    }

    fn look(&self) -> Result<(), Error> {
        self.repair_tables()?;
        let bridges = self.bridges();
        if self.insert {
            self.ask_foreign(&bridges)?;
        }
        for warning in self.ask_firewalld(&bridges)? {
            tracing::warn!("{warning}");
        }
        Ok(())
    }

    fn look_at_legacy(&self) {
        if !foreign::legacy_lacks_jump(&self.instance) {
            return;
        }
        let bridges = self.bridges();
        if let Some(warning) = foreign::open_legacy(self.passage(&bridges), true) {
            tracing::warn!("{warning}");
        }
    }

    fn repair_tables(&self) -> Result<(), Error> {
        let instance = self.instance.as_str();
        let mut socket = self.lock();
        for ruleset in self.rulesets() {
            let whole = super::is_whole(&mut socket, &ruleset)
                .map_err(failed("look at the nftables table", instance))?;
            if !whole {
                tracing::warn!(
                    table = instance,
                    "someone took rules away; they are made again"
                );
                self.repair(&mut socket, &ruleset)?;
            }
        }
        Ok(())
    }
}

fn watch(table: Arc<Kept>) -> io::Result<Watch> {
    let mut changes = Socket::netfilter()?;
    changes.subscribe(nft::CHANGES)?;
    Watch::start("berth-nftables", move |stop| {
        let limit = table.insert.then_some(LEGACY_LOOK);
        loop {
            match stop.wait(Some((changes.as_fd(), PollFlags::IN)), limit) {
                Woken::Stopped => return,
                Woken::Late => {
                    table.look_at_legacy();
                    continue;
                }
                Woken::Ready => {}
            }
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

/// Flows of UDP that went on before the ports were published would never come to them.
fn begin_flows_anew(socket: &mut Socket, endpoint: &Endpoint) {
    let udp = Protocol::Udp.number();
    for family in [route::Family::V4, route::Family::V6] {
        let of_family = |port: &&PortBinding| route::Family::of(port.host_ip) == family;
        let ports: Vec<u16> = udp_ports(endpoint)
            .filter(of_family)
            .map(|port| port.host_port)
            .collect();
        if ports.is_empty() {
            continue;
        }
        let unwanted = |tracked: &Tracked| tracked.protocol == udp && ports.contains(&tracked.port);
        if let Err(error) = conntrack::forget(socket, family, unwanted) {
            tracing::warn!(%error, "forget tracked connections");
        }
    }
}

fn udp_ports(endpoint: &Endpoint) -> impl Iterator<Item = &PortBinding> {
    let udp = |port: &&PortBinding| port.protocol == Protocol::Udp;
    endpoint.ports.iter().filter(udp)
}
