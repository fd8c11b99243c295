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
    pub bridges: &'a [String],
}

/// What firewalld has of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Observed {
    running: Part,
    permanent: Part,
    /// The bridges that are in other zones.
    elsewhere: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Part {
    zone: bool,
    /// The interfaces in it.
    bridges: Vec<String>,
    policy: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// With these bridges in it.
    AddZone(Vec<String>),
    AddBridge(String),
    AddPolicy,
    Reload,
    /// Only the running configuration lacks the bridge.
    Bind(String),
    Unbind(String),
    /// Only from the permanent configuration.
    RemoveBridge(String),
    RemovePolicy,
    RemoveZone,
}

/// What is missing so that all `bridges` are in the zone.
fn plan(observed: &Observed, bridges: &[String]) -> Vec<Step> {
    let Observed {
        running,
        permanent,
        elsewhere,
    } = observed;
    let wanted: Vec<&String> = bridges
        .iter()
        .filter(|it| !elsewhere.contains(it))
        .collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let missing = |part: &Part| {
        let missing = wanted
            .iter()
            .filter(|bridge| !part.bridges.contains(bridge));
        missing.map(|bridge| (*bridge).clone()).collect::<Vec<_>>()
    };
    let mut steps = Vec::new();
    if permanent.zone {
        steps.extend(missing(permanent).into_iter().map(Step::AddBridge));
    } else {
        steps.push(Step::AddZone(missing(permanent)));
    }
    if !permanent.policy {
        steps.push(Step::AddPolicy);
    }
    if !running.zone || !running.policy {
        steps.push(Step::Reload);
    } else {
        steps.extend(missing(running).into_iter().map(Step::Bind));
    }
    steps
}

fn plan_removal(observed: &Observed, bridges: &[String]) -> Vec<Step> {
    let Observed {
        running, permanent, ..
    } = observed;
    let bound = bridges.iter().filter(|it| running.bridges.contains(it));
    let mut steps: Vec<Step> = bound.cloned().map(Step::Unbind).collect();
    if permanent.policy {
        // It speaks of the zone.
        steps.push(Step::RemovePolicy);
    }
    if permanent.zone {
        steps.push(Step::RemoveZone);
    }
    steps
}

/// What is to be done when some of the bridges go.
fn plan_leaving(observed: &Observed, bridges: &[String]) -> Vec<Step> {
    let step = |bridge: &String| {
        let bound = observed.running.bridges.contains(bridge);
        let permanent = observed.permanent.bridges.contains(bridge);
        let unbind = bound.then(|| Step::Unbind(bridge.clone()));
        let remove = permanent.then(|| Step::RemoveBridge(bridge.clone()));
        unbind.into_iter().chain(remove)
    };
    bridges.iter().flat_map(step).collect()
}

/// Makes what is missing of the zone and the policy. Blocks for some milliseconds, with a reload
/// for a second or two.
pub fn open(bus: &Path, membership: Membership<'_>) -> Result<(), Error> {
    let mut client = Client::open(bus, membership)?;
    let observed = client.observe()?;
    let steps = plan(&observed, membership.bridges);
    if steps.contains(&Step::Reload) {
        let zone = membership.instance;
        tracing::info!(zone, "firewalld is reloaded, to let it know our zone");
    }
    steps.into_iter().try_for_each(|step| client.apply(step))
}

/// The bridges that are in no zone; one that is in any is where its user wants it.
pub fn unbound(bus: &Path, membership: Membership<'_>) -> Result<Vec<String>, Error> {
    let observed = Client::open(bus, membership)?.observe()?;
    let is_bound = |bridge: &&String| {
        observed.running.bridges.contains(bridge) || observed.elsewhere.contains(bridge)
    };
    let bridges = membership.bridges.iter();
    Ok(bridges.filter(|it| !is_bound(it)).cloned().collect())
}

/// Takes away what is there of the zone and the policy. Goes on past a failure; the first is
/// returned.
pub fn close(bus: &Path, membership: Membership<'_>) -> Result<(), Error> {
    let mut client = Client::open(bus, membership)?;
    let steps = plan_removal(&client.observe()?, membership.bridges);
    client.apply_all(steps)
}

/// Takes bridges out of the zone, which stays. Goes on past a failure; the first is returned.
pub fn leave(bus: &Path, membership: Membership<'_>) -> Result<(), Error> {
    let mut client = Client::open(bus, membership)?;
    let steps = plan_leaving(&client.observe()?, membership.bridges);
    client.apply_all(steps)
}

/// What the user may do instead.
pub fn advice(bridges: &[String]) -> String {
    let commands: Vec<String> = bridges
        .iter()
        .map(|it| format!("firewall-cmd --permanent --zone=trusted --add-interface={it}"))
        .collect();
    format!(
        "firewalld may reject the containers' traffic. To let it pass: \
         {}; firewall-cmd --reload",
        commands.join("; ")
    )
}

struct Client<'a> {
    connection: Connection,
    membership: Membership<'a>,
    policy: String,
}

impl<'a> Client<'a> {
    fn open(bus: &Path, membership: Membership<'a>) -> Result<Client<'a>, Error> {
        Ok(Client {
            connection: Connection::open(bus, PATIENCE)?,
            membership,
            policy: format!("{}-fwd", membership.instance),
        })
    }

    /// Asks the same number of questions for any number of bridges.
    fn observe(&mut self) -> Result<Observed, Error> {
        let (zone, policy) = (self.membership.instance, self.policy.clone());
        let mut observed = Observed {
            running: Part {
                zone: lists(&self.running(".zone", "getZones", &[])?, zone),
                bridges: Vec::new(),
                policy: lists(&self.running(".policy", "getPolicies", &[])?, &policy),
            },
            permanent: Part {
                zone: lists(&self.permanent("getZoneNames", &[])?, zone),
                bridges: Vec::new(),
                policy: lists(&self.permanent("getPolicyNames", &[])?, &policy),
            },
            elsewhere: Vec::new(),
        };
        for (name, interfaces) in interfaces(&self.running(".zone", "getActiveZones", &[])?) {
            if name == zone {
                observed.running.bridges = interfaces;
            } else {
                observed.elsewhere.extend(interfaces);
            }
        }
        if observed.permanent.zone {
            let answer = self.of_zone("getInterfaces", &[])?;
            observed.permanent.bridges = answer.first().map(texts).unwrap_or_default();
        }
        Ok(observed)
    }

    fn apply_all(&mut self, steps: Vec<Step>) -> Result<(), Error> {
        let results: Vec<_> = steps.into_iter().map(|step| self.apply(step)).collect();
        results.into_iter().collect()
    }

    fn apply(&mut self, step: Step) -> Result<(), Error> {
        let zone = Value::text(self.membership.instance);
        let policy = Value::text(&self.policy);
        match step {
            Step::AddZone(bridges) => {
                let bridges: Vec<&str> = bridges.iter().map(String::as_str).collect();
                let settings = Value::properties(&[
                    ("short", zone.clone()),
                    ("description", Value::text("Bridges of containers")),
                    ("target", Value::text("ACCEPT")),
                    ("interfaces", Value::texts(&bridges)),
                ]);
                self.permanent("addZone2", &[zone, settings])
            }
            Step::AddBridge(bridge) => self.of_zone("addInterface", &[Value::Text(bridge)]),
            Step::AddPolicy => {
                let settings = Value::properties(&[
                    ("short", policy.clone()),
                    ("description", Value::text("Forwarding to containers")),
                    ("target", Value::text("ACCEPT")),
                    ("ingress_zones", Value::texts(&["ANY"])),
                    ("egress_zones", Value::texts(&[self.membership.instance])),
                ]);
                self.permanent("addPolicy", &[policy, settings])
            }
            Step::Reload => self.running("", "reload", &[]),
            Step::Bind(bridge) => {
                self.running(".zone", "addInterface", &[zone, Value::Text(bridge)])
            }
            Step::Unbind(bridge) => {
                self.running(".zone", "removeInterface", &[zone, Value::Text(bridge)])
            }
            Step::RemoveBridge(bridge) => self.of_zone("removeInterface", &[Value::Text(bridge)]),
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
        let path = self.permanent("getZoneByName", &[Value::text(self.membership.instance)])?;
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

fn texts(array: &Value) -> Vec<String> {
    let items = array.as_items().unwrap_or_default();
    let text = |item: &Value| item.as_text().map(str::to_owned);
    items.iter().filter_map(text).collect()
}

/// From the answer of `getActiveZones`: each zone with its interfaces.
fn interfaces(answer: &[Value]) -> Vec<(String, Vec<String>)> {
    let entries = |value: &Value| {
        let items = value.as_items().unwrap_or_default().iter();
        let pair = |item: &Value| match item {
            Value::Entry(entry) => Some((entry.0.as_text()?.to_owned(), entry.1.clone())),
            _ => None,
        };
        items.filter_map(pair).collect::<Vec<_>>()
    };
    let zones = answer.first().map(entries).unwrap_or_default();
    let of_zone = |(zone, kinds): (String, Value)| {
        let bound = entries(&kinds);
        let bound = bound.iter().find(|(kind, _)| kind == "interfaces");
        (
            zone,
            bound.map(|(_, names)| texts(names)).unwrap_or_default(),
        )
    };
    zones.into_iter().map(of_zone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGES: [&str; 2] = ["br0", "br1"];

    fn part(zone: bool, bridges: &[&str], policy: bool) -> Part {
        Part {
            zone,
            bridges: names(bridges),
            policy,
        }
    }

    fn names(bridges: &[&str]) -> Vec<String> {
        bridges.iter().map(|name| (*name).to_owned()).collect()
    }

    fn all() -> Part {
        part(true, &BRIDGES, true)
    }

    fn check(running: Part, permanent: Part, expect: &[Step], removal: &[Step]) {
        let observed = Observed {
            running,
            permanent,
            elsewhere: Vec::new(),
        };
        let bridges = names(&BRIDGES);
        assert_eq!(plan(&observed, &bridges), expect, "{observed:?}");
        assert_eq!(plan_removal(&observed, &bridges), removal, "{observed:?}");
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_there_is_removed() {
        use Step::*;
        let nothing = Part::default;
        let add_zone = || AddZone(names(&BRIDGES));
        let each = |step: fn(String) -> Step| BRIDGES.map(|bridge| step(bridge.to_owned()));
        let [bind0, bind1] = each(Bind);
        let [unbind0, unbind1] = each(Unbind);
        let [add0, add1] = each(AddBridge);
        check(nothing(), nothing(), &[add_zone(), AddPolicy, Reload], &[]);
        let removal = [unbind0, unbind1, RemovePolicy, RemoveZone];
        check(all(), all(), &[], &removal);
        // After an end, and before the next reload.
        let name_only = part(true, &[], true);
        let steps = [add_zone(), AddPolicy, bind0, bind1.clone()];
        check(name_only, nothing(), &steps, &[]);
        // A daemon that was killed in between.
        check(nothing(), all(), &[Reload], &[RemovePolicy, RemoveZone]);
        let bare = part(true, &[], false);
        let steps = [add0, add1.clone(), AddPolicy, Reload];
        check(nothing(), bare, &steps, &[RemoveZone]);
        // A network is added.
        let one = || part(true, &["br0"], true);
        let [unbind0, _] = each(Unbind);
        let removal = [unbind0, RemovePolicy, RemoveZone];
        check(one(), one(), &[add1, bind1], &removal);
    }

    #[test]
    fn a_bridge_in_a_zone_of_its_user_is_left_alone() {
        let observed = Observed {
            elsewhere: names(&["br0"]),
            ..Observed::default()
        };
        assert_eq!(plan(&observed, &names(&["br0"])), []);
        let steps = plan(&observed, &names(&BRIDGES));
        assert_eq!(steps[0], Step::AddZone(names(&["br1"])));
    }

    #[test]
    fn only_the_bridges_that_go_leave_the_zone() {
        let observed = Observed {
            running: all(),
            permanent: all(),
            elsewhere: Vec::new(),
        };
        let bridge = || "br1".to_owned();
        let expect = [Step::Unbind(bridge()), Step::RemoveBridge(bridge())];
        assert_eq!(plan_leaving(&observed, &[bridge()]), expect);
    }
}
