//! What a client has been told about one of its containers, and what must therefore be true.
//!
//! A request without an answer leaves two possibilities; the next look at the container settles
//! which. Whatever was answered is a promise, and a container that breaks one fails the test.

use std::path::Path;

use berth_testkit::{http, until};
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Writes so many numbered lines and ends with the code.
    Short { lines: usize, code: i64 },
    /// Writes numbered lines for ever; on SIGTERM it writes `end` and ends with 7.
    Long,
}

/// The code of a long container that was asked to end.
pub const ASKED: i64 = 7;
/// The code of one that was killed.
pub const KILLED: i64 = 137;

/// Whether something is so, as far as answers told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    No,
    Maybe,
    Yes,
}

/// How a container that was started must be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Runs,
    /// It runs, or has ended with one of these.
    MayEnd(Vec<i64>),
    /// It ends with one of these.
    Ends(Vec<i64>),
}

#[derive(Debug)]
pub struct Container {
    /// The last one that was acknowledged, and those that were asked for without an answer.
    pub names: Vec<String>,
    /// Empty when its creation was not answered.
    pub id: String,
    pub kind: Kind,
    pub exists: Certainty,
    pub started: Certainty,
    pub fate: Fate,
    /// So many of its starts were not answered and then undone; their lines are in the log.
    pub called_off: usize,
    /// So many lines of its log were delivered to a client.
    pub seen: usize,
}

impl Container {
    pub fn new(name: String, kind: Kind) -> Self {
        let fate = match kind {
            Kind::Short { code, .. } => Fate::Ends(vec![code]),
            Kind::Long => Fate::Runs,
        };
        Self {
            names: vec![name],
            id: String::new(),
            kind,
            exists: Certainty::Maybe,
            started: Certainty::No,
            fate,
            called_off: 0,
            seen: 0,
        }
    }

    /// The body of the request that creates it.
    pub fn request(&self, network: &str, port: bool) -> Value {
        let script = match self.kind {
            Kind::Short { lines, code } => {
                format!(
                    "i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo $i; done; sleep 0.02; exit {code}"
                )
            }
            Kind::Long => format!(
                "i=0; trap 'echo end $i; exit {ASKED}' TERM; \
                 while :; do i=$((i+1)); echo $i; sleep 0.05; done"
            ),
        };
        let bindings = if port {
            serde_json::json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]})
        } else {
            serde_json::json!({})
        };
        serde_json::json!({
            "Image": "busybox", "Cmd": ["sh", "-c", script], "ExposedPorts": {"80/tcp": {}},
            "HostConfig": {"NetworkMode": network, "PortBindings": bindings},
        })
    }

    /// Something happened to it that may end it with this code.
    pub fn may_end(&mut self, code: i64) {
        match &mut self.fate {
            Fate::Runs => self.fate = Fate::MayEnd(vec![code]),
            Fate::MayEnd(codes) | Fate::Ends(codes) => codes.push(code),
        }
    }

    pub fn must_end(&mut self, code: i64) {
        self.may_end(code);
        if let Fate::MayEnd(codes) = &self.fate {
            self.fate = Fate::Ends(codes.clone());
        }
    }

    /// Compares it with what the daemon says, and settles what was open. `false`: it is gone, as
    /// it may be.
    #[track_caller]
    pub fn verify(&mut self, socket: &Path) -> bool {
        let Some(found) = self.inspect(socket) else {
            assert_ne!(self.exists, Certainty::Yes, "lost: {self:?}");
            return false;
        };
        assert_ne!(self.exists, Certainty::No, "not removed: {self:?}");
        self.exists = Certainty::Yes;
        self.id = found["Id"].as_str().unwrap().to_owned();
        let name = found["Name"].as_str().unwrap().trim_start_matches('/');
        assert!(
            self.names.iter().any(|known| known == name),
            "its name is {name}: {self:?}"
        );
        self.names = vec![name.to_owned()];
        let was_started = found["State"]["StartedAt"] != "0001-01-01T00:00:00Z";
        match self.started {
            Certainty::Yes => assert!(was_started, "its start is forgotten: {self:?}\n{found:#}"),
            Certainty::No => assert!(!was_started, "nobody started it: {self:?}\n{found:#}"),
            Certainty::Maybe if was_started => self.started = Certainty::Yes,
            Certainty::Maybe => {
                self.started = Certainty::No;
                self.called_off += 1;
            }
        }
        if was_started {
            self.verify_fate(socket);
            self.verify_log(socket);
        }
        true
    }

    fn inspect(&self, socket: &Path) -> Option<Value> {
        let references = self.names.iter().filter(|_| self.id.is_empty());
        for reference in references.chain((!self.id.is_empty()).then_some(&self.id)) {
            let path = format!("/containers/{reference}/json");
            let found = http::request(socket, "GET", &path, None).expect(&path);
            if found.status == 200 {
                return Some(found.json());
            }
            assert_eq!(found.status, 404, "{path}: {}", found.text());
        }
        None
    }

    fn verify_fate(&mut self, socket: &Path) {
        let state = || {
            let found = self.inspect(socket).expect("it was there before");
            let running = found["State"]["Running"] == true;
            (running, found["State"]["ExitCode"].as_i64().unwrap(), found)
        };
        match &self.fate {
            Fate::Runs => {
                let (running, code, found) = state();
                assert!(running, "ended with {code}: {self:?}\n{:#}", found["State"]);
            }
            Fate::MayEnd(codes) => {
                let (running, code, found) = state();
                if !running {
                    assert!(
                        codes.contains(&code),
                        "code {code}: {self:?}\n{:#}",
                        found["State"]
                    );
                    self.fate = Fate::Ends(vec![code]);
                }
            }
            Fate::Ends(codes) => {
                let code = until("the container ends", || {
                    let (running, code, _) = state();
                    (!running).then_some(code)
                });
                assert!(codes.contains(&code), "code {code}: {self:?}");
                self.fate = Fate::Ends(vec![code]);
            }
        }
    }

    fn verify_log(&mut self, socket: &Path) {
        let path = format!("/containers/{}/logs?stdout=1&stderr=1", self.id);
        let logs = http::request(socket, "GET", &path, None).expect(&path);
        assert_eq!(logs.status, 200, "{}", logs.text());
        let code = match &self.fate {
            Fate::Ends(codes) => codes.first().copied(),
            Fate::Runs | Fate::MayEnd(_) => None,
        };
        self.check_log(&logs.demultiplexed(), code);
    }

    /// The lines are those that it wrote, without a gap, and no fewer than a client has seen; if
    /// it has ended by itself with this code, all of them.
    #[track_caller]
    pub fn check_log(&mut self, text: &str, ended: Option<i64>) {
        let (mut count, mut runs) = (0, 1);
        let mut last = None;
        for line in text.lines() {
            if let Some(number) = line.strip_prefix("end ") {
                last = Some(number.parse::<usize>().unwrap());
                continue;
            }
            if line == "1" && count > 0 && runs <= self.called_off {
                (count, runs) = (0, runs + 1);
            }
            count += 1;
            assert_eq!(
                line.parse(),
                Ok(count),
                "a gap in the log of {self:?}: {text}"
            );
        }
        let lines = text.lines().count();
        assert!(
            lines >= self.seen,
            "{lines} lines, but {} were seen: {self:?}",
            self.seen
        );
        self.seen = lines;
        match (self.kind, ended) {
            (Kind::Short { lines, code }, Some(ended)) if code == ended => {
                assert_eq!(count, lines, "the log is not whole: {self:?}");
            }
            (Kind::Long, Some(ASKED)) => {
                // Asked between counting and writing, it has not written the number.
                let whole = last.is_some_and(|last| (last - 1..=last).contains(&count));
                assert!(whole, "{count} lines, the last is {last:?}: {self:?}");
            }
            _ => {}
        }
    }
}
