//! One client: it does what comes to its mind with its own containers, images and volumes, and
//! remembers what it was told.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use berth_testkit::http::{self, Response};
use berth_testkit::{Random, until};
use serde_json::{Value, json};

use super::container::{ASKED, Certainty, Container, Fate, KILLED, Kind};
use super::victim::{Round, kill, parent};

/// So many containers each.
const CONTAINERS: usize = 3;

#[derive(Debug)]
pub struct Client {
    number: usize,
    socket: PathBuf,
    random: Random,
    next: u32,
    pub containers: Vec<Container>,
    /// An image that it pulls and removes, in turn.
    image: Option<(String, Certainty)>,
    volumes: BTreeMap<String, Certainty>,
    /// Answers that it had.
    pub answers: u64,
}

/// The daemon did not answer, or not wholly.
struct Gone;

impl From<io::Error> for Gone {
    fn from(_error: io::Error) -> Self {
        Self
    }
}

impl Client {
    pub fn new(number: usize, socket: &Path, seed: u64, image: Option<String>) -> Self {
        Self {
            number,
            socket: socket.to_owned(),
            random: Random::new(seed),
            next: 0,
            containers: Vec::new(),
            image: image.map(|image| (image, Certainty::No)),
            volumes: BTreeMap::new(),
            answers: 0,
        }
    }

    /// Goes on until the round is over or the daemon is gone.
    pub fn work(&mut self, round: &Round) {
        let mut going = true;
        while going && !round.is_over() {
            let before = self.answers;
            going = self.step(round).is_ok();
            let answers = self.answers - before;
            round.answers.fetch_add(answers, Ordering::Relaxed);
        }
    }

    fn step(&mut self, round: &Round) -> Result<(), Gone> {
        let few = self.containers.len() < CONTAINERS;
        if self.containers.is_empty() || (few && self.random.percent(35)) {
            return self.create(round);
        }
        match self.random.below(10) {
            0 if self.image.is_some() => return self.pull_or_remove(),
            1 => return self.volume(),
            _ => {}
        }
        let count = u64::try_from(self.containers.len()).unwrap();
        let index = usize::try_from(self.random.below(count)).unwrap();
        let (kind, started) = (self.containers[index].kind, self.containers[index].started);
        let runs = started == Certainty::Yes && self.containers[index].fate == Fate::Runs;
        match (self.random.below(100), kind) {
            (0..60, _) if started == Certainty::No => self.start(index, round),
            (0..30, Kind::Long) if runs => self.exec(index, round),
            (30..50, _) if started == Certainty::Yes => self.logs(index),
            (50..60, Kind::Long) if runs => self.stop(index, round),
            (60..65, Kind::Long) if runs => self.kill(index),
            (65..70, Kind::Long) if runs => self.kill_exec(index, round),
            (50..60, Kind::Short { .. }) if started == Certainty::Yes => self.wait(index, round),
            (70..80, _) => self.rename(index),
            (80..100, _) => self.remove(index, round),
            _ => Ok(()),
        }
    }

    fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Response> {
        let answer = http::request(&self.socket, method, path, body)?;
        self.answers += 1;
        Ok(answer)
    }

    fn create(&mut self, round: &Round) -> Result<(), Gone> {
        self.next += 1;
        let name = format!("client{}-{}", self.number, self.next);
        let kind = if self.random.percent(50) {
            Kind::Long
        } else {
            let lines = usize::try_from(self.random.below(200)).unwrap();
            let code = 20 + i64::try_from(self.random.below(50)).unwrap();
            Kind::Short { lines, code }
        };
        let network = *self.random.pick(&["none", "bridge"]).unwrap();
        let port = network == "bridge" && self.random.percent(50);
        let container = Container::new(name.clone(), kind);
        let body = container.request(network, port);
        self.containers.push(container);
        let path = format!("/containers/create?name={name}");
        let answer = self.ask("POST", &path, Some(&body))?;
        assert_eq!(answer.status, 201, "create {name}: {}", answer.text());
        let container = self.containers.last_mut().unwrap();
        container.exists = Certainty::Yes;
        container.id = answer.json()["Id"].as_str().unwrap().to_owned();
        if self.random.percent(90) {
            return self.start(self.containers.len() - 1, round);
        }
        Ok(())
    }

    fn start(&mut self, index: usize, round: &Round) -> Result<(), Gone> {
        self.containers[index].started = Certainty::Maybe;
        let path = format!("/containers/{}/start", self.containers[index].id);
        let answer = self.ask("POST", &path, None)?;
        let container = &mut self.containers[index];
        if answer.status == 204 {
            container.started = Certainty::Yes;
            return Ok(());
        }
        assert!(
            round.excuses(&container.id),
            "start: {} {}: {container:?}",
            answer.status,
            answer.text()
        );
        container.started = Certainty::No;
        container.called_off += 1;
        Ok(())
    }

    /// Runs a command in it, and looks at what it wrote and at its code.
    fn exec(&mut self, index: usize, round: &Round) -> Result<(), Gone> {
        let number = self.random.below(100);
        let script = format!("echo said {number}; exit {number}");
        let body = json!({"Cmd": ["sh", "-c", script], "AttachStdout": true, "AttachStderr": true});
        let path = format!("/containers/{}/exec", self.containers[index].id);
        let answer = self.ask("POST", &path, Some(&body))?;
        let id = match answer.status {
            201 => answer.json()["Id"].as_str().unwrap().to_owned(),
            _ => return self.excused(index, round, &answer),
        };
        let body = json!({"Detach": false, "Tty": false});
        let started = self.ask("POST", &format!("/exec/{id}/start"), Some(&body))?;
        if started.status != 101 {
            return self.excused(index, round, &started);
        }
        // A killed daemon or keeper ends the stream, too; so the code is asked first.
        let inspected = self.ask("GET", &format!("/exec/{id}/json"), None)?;
        if round.excuses(&self.containers[index].id) {
            return self.excused(index, round, &inspected);
        }
        let found = inspected.json();
        assert_eq!(found["ExitCode"], number, "{found}");
        assert_eq!(started.demultiplexed(), format!("said {number}\n"));
        Ok(())
    }

    /// Kills a command in it by its process id; the container itself goes on.
    fn kill_exec(&mut self, index: usize, round: &Round) -> Result<(), Gone> {
        let body = json!({"Cmd": ["sleep", "1000"]});
        let path = format!("/containers/{}/exec", self.containers[index].id);
        let answer = self.ask("POST", &path, Some(&body))?;
        let Some(id) = answer.json()["Id"].as_str().map(str::to_owned) else {
            return self.excused(index, round, &answer);
        };
        let path = format!("/exec/{id}/start");
        let answer = self.ask("POST", &path, Some(&json!({"Detach": true})))?;
        if !answer.is_success() {
            return self.excused(index, round, &answer);
        }
        let path = format!("/exec/{id}/json");
        let found = self.ask("GET", &path, None)?.json();
        let Some(pid) = found["Pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok())
        else {
            return self.excused(index, round, &answer);
        };
        if found["Running"] == true {
            kill(pid);
        }
        let socket = self.socket.clone();
        let code = until("the killed command has a code", || {
            let Ok(found) = http::request(&socket, "GET", &path, None) else {
                return Some(None);
            };
            let found = found.json();
            match found["Running"].as_bool() {
                Some(true) => None,
                Some(false) => Some(Some(found["ExitCode"].as_i64())),
                // Its container is gone.
                None => Some(None),
            }
        });
        match code {
            None if !round.excuses(&self.containers[index].id) => Err(Gone),
            _ if round.excuses(&self.containers[index].id) => {
                self.containers[index].may_end(KILLED);
                Ok(())
            }
            code => {
                assert_eq!(code, Some(Some(KILLED)), "the code of a killed command");
                Ok(())
            }
        }
    }

    fn logs(&mut self, index: usize) -> Result<(), Gone> {
        let id = self.containers[index].id.clone();
        let path = format!("/containers/{id}/logs?stdout=1&stderr=1");
        let answer = self.ask("GET", &path, None)?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.containers[index].check_log(&answer.demultiplexed(), None);
        Ok(())
    }

    fn stop(&mut self, index: usize, round: &Round) -> Result<(), Gone> {
        // Before its first line it has no handler yet.
        if self.containers[index].seen == 0 {
            return self.logs(index);
        }
        self.containers[index].may_end(ASKED);
        let path = format!("/containers/{}/stop?t=20", self.containers[index].id);
        let answer = self.ask("POST", &path, None)?;
        if answer.status != 204 {
            return self.excused(index, round, &answer);
        }
        self.containers[index].must_end(ASKED);
        Ok(())
    }

    /// Kills its first process or its keeper behind the daemon's back.
    fn kill(&mut self, index: usize) -> Result<(), Gone> {
        let path = format!("/containers/{}/json", self.containers[index].id);
        let found = self.ask("GET", &path, None)?.json();
        let pid = found["State"]["Pid"].as_i64().unwrap_or(0);
        let keeper = self.random.percent(50);
        let container = &mut self.containers[index];
        if pid != 0
            && let Ok(pid) = i32::try_from(pid)
            && let Some(parent) = parent(pid)
        {
            container.must_end(KILLED);
            kill(if keeper { parent } else { pid });
        }
        Ok(())
    }

    fn wait(&mut self, index: usize, round: &Round) -> Result<(), Gone> {
        let path = format!("/containers/{}/wait", self.containers[index].id);
        let answer = self.ask("POST", &path, None)?;
        let code = answer.json()["StatusCode"].as_i64();
        let container = &mut self.containers[index];
        if round.excuses(&container.id) {
            container.may_end(KILLED);
        }
        if let Fate::Ends(codes) = &mut container.fate {
            let code = code.filter(|code| codes.contains(code));
            let code = code.unwrap_or_else(|| panic!("{}", answer.text()));
            *codes = vec![code];
        }
        Ok(())
    }

    fn rename(&mut self, index: usize) -> Result<(), Gone> {
        self.next += 1;
        let name = format!("client{}-{}", self.number, self.next);
        self.containers[index].names.push(name.clone());
        let path = format!(
            "/containers/{}/rename?name={name}",
            self.containers[index].id
        );
        let answer = self.ask("POST", &path, None)?;
        assert_eq!(answer.status, 204, "rename: {}", answer.text());
        self.containers[index].names = vec![name];
        Ok(())
    }

    fn remove(&mut self, index: usize, round: &Round) -> Result<(), Gone> {
        let container = &mut self.containers[index];
        container.exists = Certainty::Maybe;
        container.may_end(KILLED);
        let path = format!("/containers/{}?force=1", container.id);
        let answer = self.ask("DELETE", &path, None)?;
        if answer.status != 204 {
            self.containers[index].exists = Certainty::Yes;
            return self.excused(index, round, &answer);
        }
        let removed = self.containers.swap_remove(index);
        let path = format!("/containers/{}/json", removed.id);
        let again = self.ask("GET", &path, None)?;
        assert_eq!(again.status, 404, "removed, but there: {removed:?}");
        Ok(())
    }

    fn pull_or_remove(&mut self) -> Result<(), Gone> {
        let Some((name, there)) = self.image.clone() else {
            return Ok(());
        };
        let (method, path) = match there {
            Certainty::Yes => ("DELETE", format!("/images/{name}")),
            _ => ("POST", format!("/images/create?fromImage={name}")),
        };
        self.image = Some((name.clone(), Certainty::Maybe));
        let answer = self.ask(method, &path, None)?;
        let text = answer.text();
        assert!(
            answer.is_success() && !text.contains("errorDetail"),
            "{path}: {text}"
        );
        let now = match there {
            Certainty::Yes => Certainty::No,
            _ => Certainty::Yes,
        };
        self.image = Some((name, now));
        Ok(())
    }

    fn volume(&mut self) -> Result<(), Gone> {
        if let Some(name) = self.volumes.keys().next().cloned()
            && self.random.percent(50)
        {
            self.volumes.insert(name.clone(), Certainty::Maybe);
            let answer = self.ask("DELETE", &format!("/volumes/{name}"), None)?;
            assert_eq!(answer.status, 204, "{}", answer.text());
            self.volumes.remove(&name);
            return Ok(());
        }
        self.next += 1;
        let name = format!("volume{}-{}", self.number, self.next);
        self.volumes.insert(name.clone(), Certainty::Maybe);
        let answer = self.ask("POST", "/volumes/create", Some(&json!({"Name": name})))?;
        assert_eq!(answer.status, 201, "{}", answer.text());
        self.volumes.insert(name, Certainty::Yes);
        Ok(())
    }

    /// A refusal that has its reason in what the harness has killed.
    #[track_caller]
    fn excused(&mut self, index: usize, round: &Round, answer: &Response) -> Result<(), Gone> {
        let container = &mut self.containers[index];
        assert!(
            round.excuses(&container.id),
            "{} {}: {container:?}",
            answer.status,
            answer.text()
        );
        container.may_end(KILLED);
        Ok(())
    }

    /// Compares everything that it was told with what the daemon says now.
    pub fn verify(&mut self, round: &Round) {
        for container in &mut self.containers {
            if round.excuses(&container.id) || container.id.is_empty() {
                container.may_end(KILLED);
            }
        }
        let socket = self.socket.clone();
        self.containers
            .retain_mut(|container| container.verify(&socket));
        if let Some((name, there)) = &mut self.image {
            settle(&socket, &format!("/images/{name}/json"), there);
        }
        for (name, there) in &mut self.volumes {
            settle(&socket, &format!("/volumes/{name}"), there);
        }
        self.volumes.retain(|_, there| *there == Certainty::Yes);
    }
}

/// Something is there, or not, as was said; if nothing was, either.
fn settle(socket: &Path, path: &str, there: &mut Certainty) {
    let found = http::request(socket, "GET", path, None).expect(path);
    *there = match (found.status, *there) {
        (200, Certainty::Yes | Certainty::Maybe) => Certainty::Yes,
        (404, Certainty::No | Certainty::Maybe) => Certainty::No,
        (status, _) => panic!("{path}: {status}, but it is {there:?}"),
    };
}
