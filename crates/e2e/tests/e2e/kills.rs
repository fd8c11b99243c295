//! Everything of an instance is killed at any moment, under load, again and again.
//!
//! ```text
//! round:  8 clients work ──▶ kill -9 at a random moment ──▶ clients stop ──▶ next daemon
//!            ▲                                                                  │
//!            └── nothing orphaned on the machine ◀── every promise is kept ◀────┘
//! ```
//!
//! `tests/long/faults` runs the same for longer: `BERTH_KILL_ROUNDS`, and `BERTH_KILL_SEED` to
//! repeat a run's choices.

mod client;
mod container;
mod remains;
mod victim;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use berth_testkit::registry::free_port;
use berth_testkit::{Daemon, Random, Registry, http, sh, until};
use rustix::process::Signal;

use crate::program;
use client::Client;
use victim::{Round, Target};

const CLIENTS: usize = 8;
/// Instances side by side, each with its own clients.
const INSTANCES: u64 = 2;
const ROUNDS: u64 = 100;
/// After fewer answers than this, all clients together, something is killed.
const ANSWERS: u64 = 60;
/// Clients that also pull; each has an image of its own.
const PULLERS: usize = 4;

#[test]
fn nothing_acknowledged_is_lost_and_nothing_orphaned_is_left_however_it_is_killed() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = number("BERTH_KILL_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    let rounds = number("BERTH_KILL_ROUNDS").unwrap_or(ROUNDS);
    println!("kills: seed {seed}, {rounds} rounds");
    let registry = images();
    let registry = &registry;
    std::thread::scope(|scope| {
        for instance in 0..INSTANCES {
            scope.spawn(move || Harness::new(seed + instance, registry).run(rounds / INSTANCES));
        }
    });
}

/// A registry with small images that nothing can compress.
fn images() -> Registry {
    let registry = Registry::start(free_port(), "");
    let layout = registry.directory.join("layout");
    sh(&format!(
        "cd {}; umoci init --layout layout; mkdir files
         for i in $(seq {PULLERS}); do
             head -c 2000000 /dev/urandom >files/$i
             umoci new --image layout:$i; umoci insert --image layout:$i files/$i /$i
         done 2>/dev/null",
        registry.directory.display()
    ));
    for image in 1..=PULLERS {
        let image = image.to_string();
        registry.push_from(
            &layout,
            &image,
            &format!("kill:{image}"),
            "--dest-tls-verify=false",
        );
    }
    registry
}

struct Harness {
    daemon: Daemon,
    clients: Vec<Client>,
    random: Random,
    seed: u64,
    /// From the start of a daemon to its first answer.
    starts: Vec<Duration>,
    /// The processor time that it had used by then.
    costs: Vec<Duration>,
}

impl Harness {
    fn new(seed: u64, registry: &Registry) -> Self {
        let daemon = Daemon::start(program(), &[]);
        daemon.load("busybox");
        let clients = (0..CLIENTS).map(|number| {
            let image =
                (number < PULLERS).then(|| format!("{}/kill:{}", registry.host, number + 1));
            let seed = seed.wrapping_mul(1000) + u64::try_from(number).unwrap();
            Client::new(number, &daemon.socket(), seed, image)
        });
        Self {
            clients: clients.collect(),
            daemon,
            random: Random::new(seed),
            seed,
            starts: Vec::new(),
            costs: Vec::new(),
        }
    }

    fn run(mut self, rounds: u64) {
        for number in 0..rounds {
            let target = Target::choose(&mut self.random);
            let told = Told {
                seed: self.seed,
                number,
                target,
            };
            self.round(target);
            drop(told);
        }
        let answers: u64 = self.clients.iter().map(|client| client.answers).sum();
        println!(
            "kills: seed {}: {rounds} rounds, {answers} answers, {} starts of a daemon; \
             to the first answer {}; of processor time {}",
            self.seed,
            self.starts.len(),
            spread(&mut self.starts),
            spread(&mut self.costs),
        );
    }

    fn round(&mut self, target: Target) {
        let round = Round::default();
        // By the clients' progress and not by the clock: a slow machine shall do as much.
        let answers = self.random.below(ANSWERS);
        let moment = Duration::from_micros(self.random.below(5000));
        let instance = self.daemon.instance();
        std::thread::scope(|scope| {
            for client in &mut self.clients {
                scope.spawn(|| client.work(&round));
            }
            until("the clients are busy", || round.has_had(answers));
            // The moment is what the test varies.
            std::thread::sleep(moment);
            match target {
                Target::Launcher => {
                    round.excuse_all();
                    for pid in victim::named(&instance, "berth-launcher") {
                        victim::kill(pid);
                    }
                }
                Target::Keeper => round.kill_any(&instance, &mut self.random, true),
                Target::Theirs => {}
                _ => self.daemon.signal(Signal::KILL),
            }
            match target {
                Target::DaemonAndKeeper => round.kill_any(&instance, &mut self.random, true),
                Target::DaemonAndInit => round.kill_any(&instance, &mut self.random, false),
                _ if target.has_daemon() => {}
                _ => {
                    let more = answers + self.random.below(ANSWERS);
                    until("the clients go on", || round.has_had(more));
                }
            }
            round.over.store(true, Ordering::Release);
        });
        if target.has_daemon() {
            let before = Instant::now();
            self.daemon.spawn();
            self.starts.push(before.elapsed());
            self.costs.push(self.daemon.processor_time());
        }
        std::thread::scope(|scope| {
            for client in &mut self.clients {
                scope.spawn(|| client.verify(&round));
            }
        });
        self.verify_list();
        remains::check(&self.daemon);
    }

    /// There are no containers but those that somebody created.
    fn verify_list(&self) {
        let path = "/containers/json?all=1";
        let answer = http::request(&self.daemon.socket(), "GET", path, None).unwrap();
        let found: BTreeSet<String> = answer.json().as_array().unwrap().iter().map(id).collect();
        let known = self.clients.iter().flat_map(|client| &client.containers);
        let known: BTreeSet<String> = known.map(|container| container.id.clone()).collect();
        assert_eq!(found, known);
    }
}

fn id(container: &serde_json::Value) -> String {
    container["Id"].as_str().unwrap().to_owned()
}

/// Median and largest.
fn spread(times: &mut [Duration]) -> String {
    times.sort();
    match (times.get(times.len() / 2), times.last()) {
        (Some(median), Some(largest)) => format!("{median:.0?}, at most {largest:.0?}"),
        _ => "not measured".to_owned(),
    }
}

/// Says which round has failed.
struct Told {
    seed: u64,
    number: u64,
    target: Target,
}

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self {
                seed,
                number,
                target,
            } = self;
            eprintln!("kills: seed {seed} failed in round {number}, target {target:?}");
        }
    }
}
