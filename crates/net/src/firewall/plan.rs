//! Which chains, sets and rules a table has.

use berth_sys::nft::{
    Chain, Expression, Family, Field, Hook, HookPoint, Map, MetaKey, Rule, Verdict,
};

use super::parts::*;
use super::{
    ADDRESSED, BRIDGES, GUARD, INTERNAL, Inputs, MASQUERADED, OPEN, PORTS, ROUTED, Ruleset, SAME,
    SOURCES, TRUSTED, UNPROTECTED, USER, WITHIN,
};

/// Decides a table's rules.
pub fn plan(inputs: &Inputs) -> Ruleset {
    let family = inputs.family;
    let base = |name: &str, kind, point, priority| Chain {
        name: name.to_owned(),
        hook: Some(Hook {
            kind,
            point,
            priority,
            drop_by_default: false,
        }),
    };
    let chains = vec![
        base("martian", "filter", HookPoint::Prerouting, -300),
        base("prerouting", "nat", HookPoint::Prerouting, -100),
        base("output", "nat", HookPoint::Output, -100),
        base("postrouting", "nat", HookPoint::Postrouting, 100),
        base("forward", "filter", HookPoint::Forward, 0),
        Chain {
            name: USER.to_owned(),
            hook: None,
        },
    ];
    let mut rules = Vec::new();
    let mut rule = |chain: &str, comment: Option<&str>, parts: &[Vec<Expression>]| {
        let comment = comment.map(str::to_owned);
        rules.push(Rule {
            chain: chain.to_owned(),
            expressions: parts.concat(),
            comment,
        });
    };

    if family == Family::Ip {
        // With route_localnet a container could reach the host's loopback, or pretend to be it.
        // The kernel itself never lets ::1 in or out.
        let foreign_loopback = Some("loopback addresses that did not come from lo");
        for match_loopback in [to(LOOPBACK), from(LOOPBACK)] {
            rule(
                "martian",
                foreign_loopback,
                &[not(input("lo")), match_loopback, verdict(Verdict::Drop)],
            );
        }
    }

    for chain in ["prerouting", "output"] {
        if family == Family::Ip6 {
            // Nothing else than the relay can answer with these.
            for unroutable in [LOOPBACK6, LINK_LOCAL6] {
                rule(chain, None, &[to(unroutable), verdict(Verdict::Accept)]);
            }
        }
        rule(chain, None, &[to_this_host(), look_up_addressed(family)]);
        rule(chain, None, &[to_this_host(), look_up_port(family)]);
    }

    let masquerade = || vec![Expression::Masquerade];
    let accept = || verdict(Verdict::Accept);
    let drop = || verdict(Verdict::Drop);
    if family == Family::Ip {
        // 127.0.0.1 means something else to the container.
        rule(
            "postrouting",
            None,
            &[from(LOOPBACK), output_among(BRIDGES), masquerade()],
        );
    }
    // A container that calls its own network's published port must get the answer by way of the
    // host.
    rule(
        "postrouting",
        None,
        &[among(SAME), translated(), masquerade()],
    );
    // With br_netfilter the bridge itself gives the packet back, which then came in by nothing.
    let bridged = Some("published ports, by way of a bridge that is filtered");
    rule(
        "postrouting",
        bridged,
        &[
            no_input(),
            output_among(BRIDGES),
            translated(),
            not(from_this_host()),
            masquerade(),
        ],
    );
    rule("postrouting", None, &[among(SAME), accept()]);
    rule("postrouting", None, &[look_up_source(family)]);
    rule(
        "postrouting",
        None,
        &[input_among(MASQUERADED), masquerade()],
    );

    // What the administrator drops has gone on already, and what they accept is accepted.
    let ask = || verdict(Verdict::Jump(USER.to_owned()));
    rule("forward", None, &[output_among(BRIDGES), ask()]);
    let leaves = [input_among(BRIDGES), output_beyond(BRIDGES), ask()];
    rule("forward", None, &leaves);
    rule(
        "forward",
        None,
        &[output_among(BRIDGES), established(), accept()],
    );
    rule("forward", None, &[among(WITHIN), accept()]);
    let internal = Some("internal networks have no way out, and none in");
    rule("forward", internal, &[input_among(INTERNAL), drop()]);
    rule("forward", internal, &[output_among(INTERNAL), drop()]);
    rule(
        "forward",
        None,
        &[output_among(BRIDGES), translated(), accept()],
    );
    rule(
        "forward",
        None,
        &[output_among(ROUTED), look_up_open(family), accept()],
    );
    rule(
        "forward",
        None,
        &[among(TRUSTED), look_up_open(family), accept()],
    );
    rule(
        "forward",
        None,
        &[output_among(ROUTED), echo_request(family), accept()],
    );
    // From the world, not from other networks of ours.
    rule(
        "forward",
        None,
        &[input_among(BRIDGES), output_among(UNPROTECTED), drop()],
    );
    rule("forward", None, &[output_among(UNPROTECTED), accept()]);
    let unpublished = Some("ports that are not published");
    rule("forward", unpublished, &[output_among(BRIDGES), drop()]);
    rule("forward", None, &[input_among(BRIDGES), accept()]);
    if inputs.guard {
        rule(
            "forward",
            None,
            &[kind(MetaKey::InputKind, "bridge"), accept()],
        );
        rule(
            "forward",
            None,
            &[kind(MetaKey::OutputKind, "bridge"), accept()],
        );
        rule("forward", Some(GUARD), &[drop()]);
    }
    Ruleset {
        table: inputs.instance.clone(),
        family,
        chains,
        maps: maps(family),
        rules,
    }
}

fn maps(family: Family) -> Vec<Map> {
    let address = match family {
        Family::Ip6 => Field::Ipv6Address,
        Family::Ip | Family::Inet => Field::Ipv4Address,
    };
    let map = |name: &str, key: &[Field], data: &[Field]| Map {
        name: name.to_owned(),
        key: key.to_vec(),
        data: data.to_vec(),
    };
    let (one, two) = ([Field::Interface], [Field::Interface; 2]);
    vec![
        map(
            ADDRESSED,
            &[address, Field::Protocol, Field::Port],
            &[address, Field::Port],
        ),
        map(
            PORTS,
            &[Field::Protocol, Field::Port],
            &[address, Field::Port],
        ),
        map(OPEN, &[address, Field::Protocol, Field::Port], &[]),
        map(BRIDGES, &one, &[]),
        map(SAME, &two, &[]),
        map(WITHIN, &two, &[]),
        map(INTERNAL, &one, &[]),
        map(MASQUERADED, &one, &[]),
        map(SOURCES, &one, &[address]),
        map(ROUTED, &one, &[]),
        map(TRUSTED, &two, &[]),
        map(UNPROTECTED, &one, &[]),
    ]
}
