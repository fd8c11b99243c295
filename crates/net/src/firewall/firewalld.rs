//! firewalld: a zone of ours, and a policy that lets packets be forwarded into it.
//!
//! firewalld rejects what its zones do not accept, whatever our own table says. So the bridge
//! gets a zone that is named after the instance and accepts, as Docker's `docker`, with a policy
//! from all zones to it, as `docker-forwarding`. They stand in the permanent configuration with
//! the bridge in them, so that containers stay connected through `firewall-cmd --reload`, also
//! while no daemon runs.
//!
//! A running firewalld learns of a new zone only when it is reloaded, which undoes what its user
//! changed for the time being. So it is reloaded only if it does not know the zone, and not when
//! the zone is taken away: the bridge leaves it, the permanent configuration loses it, and the
//! name of an empty zone is remembered until the next reload.
//!
//! A bridge that the user put into another zone stays there, and gets none of ours.

use std::path::Path;
use std::time::Duration;

use berth_sys::dbus::{Connection, Error, Method, Value};
use berth_sys::nft::{Family, Table};

/// The table of its nftables backend.
pub const TABLE: Table<'static> = Table {
    family: Family::Inet,
    name: "firewalld",
};
/// Its name on the bus, and the start of its interfaces' names (firewalld.dbus(5)).
const SERVICE: &str = "org.fedoraproject.FirewallD1";
/// How long a call may take; a reload is some seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is to be where.
#[derive(Debug, Clone, Copy)]
pub struct Membership<'a> {
    /// The name of the zone. firewalld allows 17 characters.
    pub instance: &'a str,
    pub bridge: &'a str,
}

/// What firewalld has of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Observed {
    running: Part,
    permanent: Part,
    /// The running zone that the bridge is in, if it is not ours.
    elsewhere: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Part {
    zone: bool,
    /// The bridge is in it.
    bridge: bool,
    policy: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// With the bridge in it.
    AddZone,
    AddBridge,
    AddPolicy,
    Reload,
    /// Only the running configuration lacks the bridge.
    Bind,
    Unbind,
    /// Only from the permanent configuration.
    RemoveBridge,
    RemovePolicy,
    RemoveZone,
}

fn plan(observed: &Observed) -> Vec<Step> {
    let Observed {
        running, permanent, ..
    } = observed;
    if observed.elsewhere.is_some() {
        return Vec::new();
    }
    let mut steps = Vec::new();
    if !permanent.zone {
        steps.push(Step::AddZone);
    } else if !permanent.bridge {
        steps.push(Step::AddBridge);
    }
    if !permanent.policy {
        steps.push(Step::AddPolicy);
    }
    if !running.zone || !running.policy {
        steps.push(Step::Reload);
    } else if !running.bridge {
        steps.push(Step::Bind);
    }
    steps
}

fn plan_removal(observed: &Observed) -> Vec<Step> {
    let Observed {
        running, permanent, ..
    } = observed;
    let steps = [
        (running.bridge, Step::Unbind),
        // It speaks of the zone.
        (permanent.policy, Step::RemovePolicy),
        (permanent.zone, Step::RemoveZone),
    ];
    let wanted = steps.into_iter().filter(|(there, _)| *there);
    wanted.map(|(_, step)| step).collect()
}

/// What is to be done when one of several bridges goes.
fn plan_leaving(observed: &Observed) -> Vec<Step> {
    let steps = [
        (observed.running.bridge, Step::Unbind),
        (observed.permanent.bridge, Step::RemoveBridge),
    ];
    let wanted = steps.into_iter().filter(|(there, _)| *there);
    wanted.map(|(_, step)| step).collect()
}

/// Makes what is missing of the zone and the policy. Blocks for some milliseconds, with a reload
/// for a second or two.
pub fn open(bus: &Path, membership: Membership<'_>) -> Result<(), Error> {
    let mut client = Client::open(bus, membership)?;
    let observed = client.observe()?;
    let steps = plan(&observed);
    if steps.contains(&Step::Reload) {
        let zone = membership.instance;
        tracing::info!(zone, "firewalld is reloaded, to let it know our zone");
    }
    steps.into_iter().try_for_each(|step| client.apply(step))
}

/// Whether the bridge is in a zone, which then is what its user wants.
pub fn is_bound(bus: &Path, membership: Membership<'_>) -> Result<bool, Error> {
    let observed = Client::open(bus, membership)?.observe()?;
    Ok(observed.running.bridge || observed.elsewhere.is_some())
}

/// Takes away what is there of the zone and the policy. Goes on past a failure; the first is
/// returned.
pub fn close(bus: &Path, membership: Membership<'_>) -> Result<(), Error> {
    let mut client = Client::open(bus, membership)?;
    let steps = plan_removal(&client.observe()?);
    let results: Vec<_> = steps.into_iter().map(|step| client.apply(step)).collect();
    results.into_iter().collect()
}

/// Takes one bridge of several out of the zone. Goes on past a failure; the first is returned.
pub fn leave(bus: &Path, membership: Membership<'_>) -> Result<(), Error> {
    let mut client = Client::open(bus, membership)?;
    let steps = plan_leaving(&client.observe()?);
    let results: Vec<_> = steps.into_iter().map(|step| client.apply(step)).collect();
    results.into_iter().collect()
}

/// What the user may do instead.
pub fn advice(bridge: &str) -> String {
    format!(
        "firewalld may reject the containers' traffic. To let it pass: \
         firewall-cmd --permanent --zone=trusted --add-interface={bridge}; firewall-cmd --reload"
    )
}

struct Client<'a> {
    connection: Connection,
    zone: &'a str,
    bridge: &'a str,
    policy: String,
}

impl<'a> Client<'a> {
    fn open(bus: &Path, membership: Membership<'a>) -> Result<Client<'a>, Error> {
        Ok(Client {
            connection: Connection::open(bus, PATIENCE)?,
            zone: membership.instance,
            bridge: membership.bridge,
            policy: format!("{}-fwd", membership.instance),
        })
    }

    fn observe(&mut self) -> Result<Observed, Error> {
        let (zone, policy) = (self.zone, self.policy.clone());
        let bound = self.running(".zone", "getZoneOfInterface", &[Value::text(self.bridge)])?;
        let bound = bound.first().and_then(Value::as_text).unwrap_or_default();
        let elsewhere = Some(bound).filter(|name| !name.is_empty() && *name != zone);
        let running = Part {
            zone: lists(&self.running(".zone", "getZones", &[])?, zone),
            bridge: bound == zone,
            policy: lists(&self.running(".policy", "getPolicies", &[])?, &policy),
        };
        let mut permanent = Part {
            zone: lists(&self.permanent("getZoneNames", &[])?, zone),
            bridge: false,
            policy: lists(&self.permanent("getPolicyNames", &[])?, &policy),
        };
        if permanent.zone {
            let asked = self.of_zone("queryInterface", &[Value::text(self.bridge)])?;
            permanent.bridge = asked == [Value::Bool(true)];
        }
        Ok(Observed {
            running,
            permanent,
            elsewhere: elsewhere.map(str::to_owned),
        })
    }

    fn apply(&mut self, step: Step) -> Result<(), Error> {
        let (zone, bridge) = (Value::text(self.zone), Value::text(self.bridge));
        let policy = Value::text(&self.policy);
        match step {
            Step::AddZone => {
                let settings = Value::properties(&[
                    ("short", zone.clone()),
                    ("description", Value::text("Bridges of containers")),
                    ("target", Value::text("ACCEPT")),
                    ("interfaces", Value::texts(&[self.bridge])),
                ]);
                self.permanent("addZone2", &[zone, settings])
            }
            Step::AddBridge => self.of_zone("addInterface", &[bridge]),
            Step::AddPolicy => {
                let settings = Value::properties(&[
                    ("short", policy.clone()),
                    ("description", Value::text("Forwarding to containers")),
                    ("target", Value::text("ACCEPT")),
                    ("ingress_zones", Value::texts(&["ANY"])),
                    ("egress_zones", Value::texts(&[self.zone])),
                ]);
                self.permanent("addPolicy", &[policy, settings])
            }
            Step::Reload => self.running("", "reload", &[]),
            Step::Bind => self.running(".zone", "addInterface", &[zone, bridge]),
            Step::Unbind => self.running(".zone", "removeInterface", &[zone, bridge]),
            Step::RemoveBridge => self.of_zone("removeInterface", &[bridge]),
            Step::RemovePolicy => {
                let path = self.permanent("getPolicyByName", &[policy])?;
                self.of_object(&path, ".config.policy", "remove", &[])
            }
            Step::RemoveZone => self.of_zone("remove", &[]),
        }
        .map(drop)
    }

    /// Asks about the running configuration.
    fn running(
        &mut self,
        interface: &str,
        name: &str,
        arguments: &[Value],
    ) -> Result<Vec<Value>, Error> {
        self.call("/org/fedoraproject/FirewallD1", interface, name, arguments)
    }

    fn permanent(&mut self, name: &str, arguments: &[Value]) -> Result<Vec<Value>, Error> {
        let path = "/org/fedoraproject/FirewallD1/config";
        self.call(path, ".config", name, arguments)
    }

    /// Asks our zone of the permanent configuration.
    fn of_zone(&mut self, name: &str, arguments: &[Value]) -> Result<Vec<Value>, Error> {
        let path = self.permanent("getZoneByName", &[Value::text(self.zone)])?;
        self.of_object(&path, ".config.zone", name, arguments)
    }

    fn of_object(
        &mut self,
        found: &[Value],
        interface: &str,
        name: &str,
        arguments: &[Value],
    ) -> Result<Vec<Value>, Error> {
        let path = found.first().and_then(Value::as_text);
        let path = path.ok_or(std::io::Error::from(std::io::ErrorKind::InvalidData))?;
        self.call(path, interface, name, arguments)
    }

    fn call(
        &mut self,
        path: &str,
        interface: &str,
        name: &str,
        arguments: &[Value],
    ) -> Result<Vec<Value>, Error> {
        let method = Method {
            destination: SERVICE,
            path,
            interface: &format!("{SERVICE}{interface}"),
            name,
        };
        self.connection.call(method, arguments)
    }
}

fn lists(answer: &[Value], name: &str) -> bool {
    let items = answer.first().and_then(Value::as_items).unwrap_or_default();
    items.iter().any(|item| item.as_text() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Part = Part {
        zone: true,
        bridge: true,
        policy: true,
    };
    const NAME_ONLY: Part = Part {
        bridge: false,
        ..ALL
    };
    const NOTHING: Part = Part {
        zone: false,
        bridge: false,
        policy: false,
    };

    fn check(running: Part, permanent: Part, expect: &[Step], removal: &[Step]) {
        let observed = Observed {
            running,
            permanent,
            elsewhere: None,
        };
        assert_eq!(plan(&observed), expect, "{observed:?}");
        assert_eq!(plan_removal(&observed), removal, "{observed:?}");
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_there_is_removed() {
        use Step::*;
        check(NOTHING, NOTHING, &[AddZone, AddPolicy, Reload], &[]);
        check(ALL, ALL, &[], &[Unbind, RemovePolicy, RemoveZone]);
        // After an end, and before the next reload.
        check(NAME_ONLY, NOTHING, &[AddZone, AddPolicy, Bind], &[]);
        // A daemon that was killed in between.
        check(NOTHING, ALL, &[Reload], &[RemovePolicy, RemoveZone]);
        let bare = Part {
            policy: false,
            ..NAME_ONLY
        };
        check(
            NOTHING,
            bare,
            &[AddBridge, AddPolicy, Reload],
            &[RemoveZone],
        );
    }

    #[test]
    fn a_bridge_in_a_zone_of_its_user_is_left_alone() {
        let observed = Observed {
            elsewhere: Some("internal".to_owned()),
            ..Observed::default()
        };
        assert_eq!(plan(&observed), []);
    }
}
