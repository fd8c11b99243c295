//! The thread that visits network namespaces.
//!
//! What belongs to a namespace (its sockets, its `/proc/sys/net`) is reached only from a thread
//! inside. One thread goes there and comes back, so that no thread of the caller's pool can be
//! left in the wrong place. If it cannot come back, it ends, and the next call starts another.
//!
//! Making a namespace costs about a millisecond, so the thread keeps one ready once it has been
//! asked for one, and makes the next when it has nothing else to do.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use berth_sys::netlink::Socket;
use berth_sys::netlink::route::{self, Way};
use berth_sys::netns;

/// Calls that wait for the thread before a further one blocks.
const QUEUE: usize = 64;
/// How long nothing has to be asked for before a spare namespace is made: a start that is under
/// way shall have the processors and the kernel's locks for itself.
const LULL: Duration = Duration::from_millis(3);
/// The same after a namespace was given out, which is going to be connected.
const START: Duration = Duration::from_millis(30);
/// How long a carrier is waited for; a packet or two may be lost after that.
pub const CARRIER_TIMEOUT: Duration = Duration::from_secs(1);
pub const CARRIER_LOOK: Duration = Duration::from_micros(500);
/// The loopback's index in every namespace.
const LOOPBACK: u32 = 1;

/// What a container's interface is given.
#[derive(Debug, Clone)]
pub struct Interface {
    pub name: String,
    /// Each with the length of its network's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Where the default routes lead.
    pub ways: Vec<Way>,
    /// Tell the neighbours: the hardware address does not follow from the IP address.
    pub announce: bool,
    /// Paths below `/proc/sys`, with `IFNAME` for the name, and their values.
    pub sysctls: Vec<(String, String)>,
}

/// Where the thread works from: a namespace, and the queue of the thread that lives in it.
pub struct Visitor {
    home: OwnedFd,
    thread: Mutex<Option<SyncSender<Job>>>,
}

enum Job {
    Create(SyncSender<io::Result<OwnedFd>>),
    /// Nobody's order: the thread has the time to make a spare one.
    Provide,
    Visit(OwnedFd, Task),
}

/// Done inside a namespace, if it could be entered; gives what is to be done at home.
type Task = Box<dyn FnOnce(io::Result<()>) -> Answer + Send>;
type Answer = Box<dyn FnOnce()>;

/// The namespace that is kept ready.
enum Spare {
    /// Nobody has asked for one yet, or none could be made.
    Unwanted,
    Wanted,
    Ready(OwnedFd),
}

impl Visitor {
    /// Takes the calling thread's namespace as its home.
    pub fn new() -> io::Result<Visitor> {
        Ok(Visitor {
            home: netns::current()?,
            thread: Mutex::new(None),
        })
    }

    /// A new namespace with its loopback up.
    pub fn create(&self) -> io::Result<OwnedFd> {
        self.call(Job::Create)
    }

    /// Brings the interface up that was made in the namespace.
    pub fn configure(&self, namespace: impl AsFd, interface: Interface) -> io::Result<()> {
        self.visit(namespace, move || configure(&interface))
    }

    /// Removes an interface; one that is gone is no error.
    pub fn remove(&self, namespace: impl AsFd, name: String) -> io::Result<()> {
        self.visit(namespace, move || {
            let mut socket = Socket::route()?;
            match route::link(&mut socket, &name)? {
                Some(link) => Ok(route::delete_link(&mut socket, link.index)?),
                None => Ok(()),
            }
        })
    }

    /// Does something inside the namespace.
    pub fn visit<T: Send + 'static>(
        &self,
        namespace: impl AsFd,
        task: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let namespace = namespace.as_fd().try_clone_to_owned()?;
        self.call(|reply| {
            let task = move |entered: io::Result<()>| {
                let done = entered.and_then(|()| task());
                let answer = move || drop(reply.send(done));
                Box::new(answer) as Answer
            };
            Job::Visit(namespace, Box::new(task))
        })
    }

    fn call<T>(&self, job: impl FnOnce(SyncSender<io::Result<T>>) -> Job) -> io::Result<T> {
        let (reply, answer) = sync_channel(1);
        let mut job = job(reply);
        for _ in 0..2 {
            match self.sender()?.send(job) {
                Ok(()) => return answer.recv().map_err(|_| io::ErrorKind::BrokenPipe)?,
                Err(returned) => job = returned.0,
            }
            *self.thread.lock().unwrap_or_else(|e| e.into_inner()) = None;
        }
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn sender(&self) -> io::Result<SyncSender<Job>> {
        let mut thread = self.thread.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(sender) = thread.as_ref() {
            return Ok(sender.clone());
        }
        let (sender, jobs) = sync_channel(QUEUE);
        let home = self.home.try_clone()?;
        let builder = std::thread::Builder::new().name("berth-netns".to_owned());
        builder.spawn(move || work(&home, &jobs))?;
        *thread = Some(sender.clone());
        Ok(sender)
    }
}

fn work(home: &OwnedFd, jobs: &Receiver<Job>) {
    if netns::enter(home).is_err() {
        return;
    }
    let mut spare = Spare::Unwanted;
    let mut pause = LULL;
    loop {
        let job = match spare {
            Spare::Wanted => match jobs.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => Job::Provide,
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(job) => job,
            },
            Spare::Unwanted | Spare::Ready(_) => match jobs.recv() {
                Ok(job) => job,
                Err(_) => return,
            },
        };
        // Comes back before it answers, so that a caller never outruns a thread that is lost.
        let back = match job {
            Job::Create(reply) => {
                let (made, back) = match std::mem::replace(&mut spare, Spare::Wanted) {
                    Spare::Ready(namespace) => (Ok(namespace), Ok(())),
                    Spare::Unwanted | Spare::Wanted => (create(), netns::enter(home)),
                };
                let _ = reply.send(made);
                pause = START;
                back
            }
            Job::Provide => {
                // Without one, whoever asks gets to know the reason.
                spare = create().map_or(Spare::Unwanted, Spare::Ready);
                netns::enter(home)
            }
            Job::Visit(namespace, task) => {
                let answer = task(netns::enter(&namespace));
                let back = netns::enter(home);
                drop(namespace);
                answer();
                pause = LULL;
                back
            }
        };
        if let Err(error) = back {
            tracing::error!(%error, "cannot return to the host's network namespace");
            return;
        }
    }
}

fn create() -> io::Result<OwnedFd> {
    netns::unshare()?;
    let namespace = netns::current()?;
    route::set_up(&mut Socket::route()?, LOOPBACK)?;
    // Until a network has IPv6, as Docker: no link-local address, no router solicitations on what
    // comes after the loopback. A kernel without IPv6 has no such file. Here, since it takes
    // longer the more namespaces there are: their files of the same name share one chain of the
    // kernel's cache of names.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    Ok(namespace)
}

fn configure(interface: &Interface) -> io::Result<()> {
    let Interface {
        name,
        addresses,
        ways,
        announce,
        sysctls,
    } = interface;
    let v6 = addresses.iter().any(|(address, _)| address.is_ipv6());
    if v6 {
        write_sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0")?;
        // Its routes are the engine's to choose.
        write_sysctl(&format!("net/ipv6/conf/{name}/accept_ra"), "0")?;
    }
    if *announce {
        write_sysctl(&format!("net/ipv4/conf/{name}/arp_notify"), "1")?;
        if v6 {
            write_sysctl(&format!("net/ipv6/conf/{name}/ndisc_notify"), "1")?;
        }
    }
    for (path, value) in sysctls {
        write_sysctl(&path.replace("IFNAME", name), value)?;
    }
    let mut socket = Socket::route()?;
    let link = route::link(&mut socket, name)?.ok_or(io::ErrorKind::NotFound)?;
    route::configure(&mut socket, link.index, addresses, ways)?;
    if *announce {
        tell_neighbours(&mut socket, name)?;
    }
    Ok(())
}

/// They may remember another for the address. The kernel tells them when a link comes up, but the
/// address comes after that, and the word would be lost before the link has a carrier.
fn tell_neighbours(socket: &mut Socket, name: &str) -> io::Result<()> {
    let deadline = Instant::now() + CARRIER_TIMEOUT;
    loop {
        let link = route::link(socket, name)?.ok_or(io::ErrorKind::NotFound)?;
        if link.running || Instant::now() > deadline {
            route::set_mac(socket, link.index, &link.mac)?;
            return Ok(());
        }
        std::thread::sleep(CARRIER_LOOK);
    }
}

fn write_sysctl(path: &str, value: &str) -> io::Result<()> {
    let path = std::path::Path::new(path);
    let plain = |part| matches!(part, std::path::Component::Normal(_));
    if !path.components().all(plain) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    std::fs::write(std::path::Path::new("/proc/sys").join(path), value)
}
