//! Names that users give to containers and volumes, and those that we make up.

/// Whether Docker accepts the name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+` (`daemon/names`, moby).
pub fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// A name for a container that was given none: an adjective and a harbour word, and a digit from
/// the `attempt`th try on when the plain names are taken.
pub fn random(attempt: u32) -> String {
    let pick = |words: &[&'static str]| -> &'static str {
        let mut byte = [0u8; 1];
        getrandom::fill(&mut byte).expect("the kernel's random source answers");
        words[usize::from(byte[0]) % words.len()]
    };
    let name = format!("{}_{}", pick(ADJECTIVES), pick(NOUNS));
    if attempt == 0 {
        name
    } else {
        format!("{name}{attempt}")
    }
}

const ADJECTIVES: &[&str] = &[
    "able", "airy", "amber", "ample", "apt", "azure", "balmy", "blithe", "bold", "brave", "breezy",
    "brisk", "calm", "candid", "clear", "clever", "coral", "cosy", "crisp", "dapper", "daring",
    "deft", "eager", "early", "easy", "even", "fair", "fleet", "fond", "frank", "free", "fresh",
    "gentle", "glad", "golden", "grand", "hale", "handy", "hardy", "hearty", "honest", "humble",
    "ivory", "jolly", "jovial", "keen", "kind", "light", "lively", "lofty", "loyal", "lucid",
    "mellow", "merry", "mild", "neat", "nimble", "noble", "patient", "placid", "plucky", "proud",
    "quick", "quiet", "rapid", "ready", "rosy", "salty", "serene", "sharp", "silver", "sleek",
    "smart", "snug", "sober", "spry", "stable", "steady", "stout", "sunny", "sure", "swift",
    "tidy", "trim", "true", "trusty", "upbeat", "vivid", "warm", "wise", "witty", "zesty",
];

const NOUNS: &[&str] = &[
    "anchor",
    "barge",
    "barque",
    "bay",
    "beacon",
    "boom",
    "bosun",
    "bow",
    "bowline",
    "brig",
    "buoy",
    "cabin",
    "canal",
    "canoe",
    "capstan",
    "cargo",
    "clipper",
    "coast",
    "cove",
    "crane",
    "crew",
    "current",
    "cutter",
    "deck",
    "dinghy",
    "dock",
    "dory",
    "ebb",
    "estuary",
    "fathom",
    "ferry",
    "fjord",
    "fleet",
    "flotilla",
    "frigate",
    "galley",
    "gangway",
    "gull",
    "halyard",
    "harbour",
    "hatch",
    "haven",
    "helm",
    "hull",
    "inlet",
    "island",
    "jetty",
    "junk",
    "kayak",
    "keel",
    "ketch",
    "knot",
    "lagoon",
    "lantern",
    "lighthouse",
    "lock",
    "log",
    "mariner",
    "mast",
    "mooring",
    "oar",
    "osprey",
    "packet",
    "pennant",
    "pier",
    "pilot",
    "port",
    "quay",
    "raft",
    "reef",
    "regatta",
    "rigging",
    "rudder",
    "sail",
    "schooner",
    "sextant",
    "shoal",
    "skiff",
    "sloop",
    "sound",
    "spar",
    "stern",
    "strait",
    "tern",
    "tide",
    "tiller",
    "trawler",
    "tug",
    "wake",
    "wave",
    "wharf",
    "windlass",
    "yacht",
    "yawl",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_pattern() {
        for good in ["a1", "web-1", "A.b_c", "0x"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "a", "-a", "_a", "a b", "a/b", "é1"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    #[test]
    fn made_up_names_are_valid() {
        assert!((0..50).all(|attempt| is_valid(&random(attempt))));
    }
}
