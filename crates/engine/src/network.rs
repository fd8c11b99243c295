//! Networks: the three that always are (`bridge`, `host` and `none`), those that users make, and
//! a container's places on them.
//!
//! A network is a record in the store, `network/ID`, written before its creation is answered; the
//! kernel's part of it follows from the record ([`berth_net::Net`]).

mod create;
mod describe;
mod ipam;
mod join;
mod options;
mod ports;
mod remove;
mod settings;
mod subnets;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use berth_base::{Id, Timestamp};
use berth_docker::network::CreateRequest;
use berth_net::{DEFAULT_NETWORK, Driver, Gateway};
use berth_store::{Item, Store, Txn};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

pub use create::create;
pub use describe::{inspect, list};
pub use join::{Join, Place, check_attachable, gateways, open_namespace, publish_error};
pub use ports::ports;
pub use remove::{prune, remove};
pub use settings::{check as check_settings, conflict, dns_names, requested, with_mac};

/// The ids of the three.
const PREDEFINED: &str = "networks";
/// The records of all others.
const RECORDS: &str = "network/";

/// One network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub id: Id,
    pub name: String,
    pub created: Timestamp,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The bridge that every instance has.
    Default,
    Host,
    None,
    /// A user's: as it was asked for, and as it was made.
    Own {
        request: Box<CreateRequest>,
        made: Box<berth_net::Network>,
    },
    /// Nothing but a configuration for others.
    Configuration {
        request: Box<CreateRequest>,
    },
}

impl Network {
    pub fn driver(&self) -> &'static str {
        match &self.kind {
            Kind::Default => "bridge",
            Kind::Own { made, .. } => match &made.driver {
                Driver::Bridge(_) => "bridge",
                Driver::Child(child) => child.kind.name(),
            },
            Kind::Host => "host",
            Kind::None | Kind::Configuration { .. } => "null",
        }
    }

    /// Whether a user made it.
    pub fn is_own(&self) -> bool {
        self.request().is_some()
    }

    /// What a user asked for.
    pub fn request(&self) -> Option<&CreateRequest> {
        match &self.kind {
            Kind::Own { request, .. } | Kind::Configuration { request } => Some(request),
            Kind::Default | Kind::Host | Kind::None => None,
        }
    }

    /// Whether containers find each other by name there.
    pub fn has_names(&self) -> bool {
        matches!(self.kind, Kind::Own { .. })
    }

    /// For which families it has a way out.
    pub fn leads_out(&self) -> Gateway {
        match &self.kind {
            Kind::Default => Gateway {
                v4: true,
                v6: false,
            },
            Kind::Own { made, .. } => {
                let ways = made.ways();
                Gateway {
                    v4: ways.v4.is_some(),
                    v6: ways.v6.is_some(),
                }
            }
            Kind::Host | Kind::None | Kind::Configuration { .. } => Gateway::default(),
        }
    }

    /// What it is called below the engine, if there is anything of it there.
    pub fn link(&self) -> Option<&str> {
        match &self.kind {
            Kind::Default => Some(DEFAULT_NETWORK),
            Kind::Own { made, .. } => Some(&made.id),
            Kind::Host | Kind::None | Kind::Configuration { .. } => None,
        }
    }
}

/// Whether a container's network mode names a network of a user's.
pub fn is_own_mode(mode: &str) -> bool {
    !is_predefined(mode) && crate::spec::container_of(mode).is_none()
}

fn is_predefined(name: &str) -> bool {
    matches!(name, "" | "default" | "bridge" | "host" | "none")
}

/// All networks. The lock is held for look-ups only.
#[derive(Debug)]
pub struct Networks(RwLock<Inner>);

#[derive(Debug, Default)]
struct Inner {
    by_id: BTreeMap<String, Arc<Network>>,
    /// Also names of networks that are being created.
    names: HashMap<String, Id>,
}

/// The ids of the three networks; they are made once and kept.
#[derive(Serialize, Deserialize)]
struct Predefined {
    created: Timestamp,
    bridge: Id,
    host: Id,
    none: Id,
}

impl Networks {
    /// Reads the records; makes the ids of the three at the first start.
    pub async fn open(store: &Store) -> Result<Self> {
        let predefined = predefined(store).await?;
        let mut inner = Inner::default();
        for (id, name, kind) in [
            (predefined.bridge, "bridge", Kind::Default),
            (predefined.host, "host", Kind::Host),
            (predefined.none, "none", Kind::None),
        ] {
            inner.insert(Network {
                id,
                name: name.to_owned(),
                created: predefined.created,
                kind,
            });
        }
        let read = |item: Item| match serde_json::from_slice::<Network>(&item.value) {
            Ok(network) => inner.insert(network),
            Err(error) => {
                tracing::error!(key = item.key, %error, "a network's record cannot be read");
            }
        };
        store
            .each(RECORDS, read)
            .context("read the networks' records")?;
        Ok(Self(RwLock::new(inner)))
    }

    /// Finds a network by full id, by name, or by a prefix that only one id has.
    pub fn find(&self, reference: &str) -> Result<Arc<Network>> {
        let inner = self.read();
        let exact = inner.by_id.get(reference).or_else(|| {
            let id = inner.names.get(reference)?;
            inner.by_id.get(id.as_str())
        });
        if let Some(found) = exact {
            return Ok(found.clone());
        }
        let not_found = || Error::not_found(format!("network {reference} not found"));
        if reference.is_empty() {
            return Err(not_found());
        }
        let mut matching = inner
            .by_id
            .range(reference.to_owned()..)
            .take_while(|(id, _)| id.starts_with(reference));
        match (matching.next(), matching.next()) {
            (Some((_, found)), None) => Ok(found.clone()),
            (Some(_), Some(_)) => {
                let count = 2 + matching.count();
                Err(Error::invalid(format!(
                    "network {reference} is ambiguous ({count} matches found based on ID prefix)"
                )))
            }
            (None, _) => Err(not_found()),
        }
    }

    /// The network behind a container's network mode; `None` for `container:…`, and for one that
    /// is not there.
    pub fn of(&self, mode: &str) -> Option<Arc<Network>> {
        let name = match mode {
            "" | "default" => "bridge",
            mode => mode,
        };
        self.find(name).ok()
    }

    pub fn all(&self) -> Vec<Arc<Network>> {
        self.read().by_id.values().cloned().collect()
    }

    /// What the kernel has to have.
    pub fn made(&self) -> Vec<berth_net::Network> {
        let all = self.all();
        let made = |network: &Arc<Network>| match &network.kind {
            Kind::Own { made, .. } => Some(made.as_ref().clone()),
            Kind::Default | Kind::Host | Kind::None | Kind::Configuration { .. } => None,
        };
        all.iter().filter_map(made).collect()
    }

    /// Takes a name for a network.
    fn reserve(&self, name: &str, id: &Id) -> Result<()> {
        let mut inner = self.write();
        if inner.names.contains_key(name) {
            return Err(Error::conflict(format!(
                "network with name {name} already exists"
            )));
        }
        inner.names.insert(name.to_owned(), id.clone());
        Ok(())
    }

    fn release(&self, name: &str) {
        self.write().names.remove(name);
    }

    fn insert(&self, network: Network) {
        self.write().insert(network);
    }

    /// Takes the network out of every look-up; its name stays taken until [`Self::release`].
    /// `None`: somebody else is removing it.
    fn hide(&self, id: &Id) -> Option<Arc<Network>> {
        self.write().by_id.remove(id.as_str())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn insert(&mut self, network: Network) {
        self.names.insert(network.name.clone(), network.id.clone());
        let id = network.id.as_str().to_owned();
        self.by_id.insert(id, Arc::new(network));
    }
}

impl Network {
    /// Records the network; it exists once this returns.
    async fn save(&self, store: &Store) -> Result<()> {
        let value = serde_json::to_vec(self).context("encode a network's record")?;
        store
            .txn(Txn::put(format!("{RECORDS}{}", self.id), value))
            .await
            .context(format!("record network {}", self.id))?;
        Ok(())
    }

    /// Takes the record away; the network no longer exists once this returns.
    async fn delete(&self, store: &Store) -> Result<()> {
        store
            .txn(Txn::delete(format!("{RECORDS}{}", self.id)))
            .await
            .context(format!("remove the record of network {}", self.id))?;
        Ok(())
    }
}

async fn predefined(store: &Store) -> Result<Predefined> {
    if let Some(item) = store.get(PREDEFINED).context("read the networks' ids")?
        && let Ok(predefined) = serde_json::from_slice(&item.value)
    {
        return Ok(predefined);
    }
    let predefined = Predefined {
        created: Timestamp::now(),
        bridge: Id::random(),
        host: Id::random(),
        none: Id::random(),
    };
    let value = serde_json::to_vec(&predefined).context("encode the networks' ids")?;
    store
        .txn(Txn::put(PREDEFINED, value))
        .await
        .context("record the networks' ids")?;
    Ok(predefined)
}
