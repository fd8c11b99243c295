//! The daemon's side of the relay: finding it, starting it, starting it anew when it died.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use super::protocol::{
    Adoption, Publication, Refusal, Reply, Request, VERSION, read_frame, write_frame,
};
use crate::endpoint::PortBinding;

/// How long the relay may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Makes a process that runs `relay::main` on this socket.
pub type Start = Box<dyn Fn(UnixListener) -> io::Result<()> + Send + Sync>;

pub struct Client {
    path: PathBuf,
    start: Start,
    stream: Option<UnixStream>,
}

impl Client {
    /// Finds the relay of an earlier daemon, or starts one.
    pub fn open(path: PathBuf, start: Start) -> io::Result<Client> {
        let mut client = Client {
            path,
            start,
            stream: None,
        };
        client.connect()?;
        Ok(client)
    }

    /// `Err` of the outer result is a broken relay.
    pub fn publish(
        &mut self,
        publication: Publication,
    ) -> io::Result<Result<Vec<PortBinding>, Refusal>> {
        match self.ask(&Request::Publish(publication))? {
            Reply::Published { bindings } => Ok(Ok(bindings)),
            Reply::Refused(refusal) => Ok(Err(refusal)),
            _ => Err(unexpected()),
        }
    }

    pub fn withdraw(&mut self, container_id: &str) -> io::Result<()> {
        match self.ask(&Request::Withdraw {
            container_id: container_id.to_owned(),
        })? {
            Reply::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Returns the bindings that someone else has by now.
    pub fn adopt(&mut self, containers: Vec<Adoption>) -> io::Result<Vec<PortBinding>> {
        match self.ask(&Request::Adopt { containers })? {
            Reply::Adopted { lost } => Ok(lost),
            _ => Err(unexpected()),
        }
    }

    /// Whether a relay has the ports; if not, a new one was started, which has none yet.
    pub fn revive(&mut self) -> io::Result<bool> {
        let alive = self.ask(&Request::Hello).is_ok();
        if !alive {
            self.connect()?;
        }
        Ok(alive)
    }

    /// Another descriptor of the connection; `None` if there is none.
    pub fn connection(&self) -> Option<UnixStream> {
        self.stream.as_ref()?.try_clone().ok()
    }

    /// Ends the relay and removes its socket.
    pub fn quit(&mut self) -> io::Result<()> {
        let ended = self.ask(&Request::Quit).map(|_| ());
        let _ = std::fs::remove_file(&self.path);
        ended
    }

    fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        let stream = self.stream.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let reply = write_frame(stream, request).and_then(|()| read_frame(stream));
        if reply.is_err() {
            // A half read answer must not be taken for the next one.
            self.stream = None;
        }
        reply
    }

    fn connect(&mut self) -> io::Result<()> {
        if self.greet().is_ok_and(|version| version == VERSION) {
            return Ok(());
        }
        // Absent, dead, or of another version: that one is replaced.
        let _ = self.ask(&Request::Quit);
        let _ = std::fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path)?;
        std::fs::set_permissions(&self.path, Permissions::from_mode(0o600))?;
        (self.start)(listener)?;
        self.greet().map(|_| ())
    }

    fn greet(&mut self) -> io::Result<u32> {
        let stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        self.stream = Some(stream);
        match self.ask(&Request::Hello)? {
            Reply::Hello { version } => Ok(version),
            _ => Err(unexpected()),
        }
    }
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an answer to another question")
}
