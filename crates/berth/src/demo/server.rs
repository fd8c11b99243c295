//! The program in the demo's containers: a web server of one page, and a client for it.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
const MAX_HEADER_BYTES: u64 = 16 << 10;
const MAX_PAGE_BYTES: u64 = 1 << 20;

pub fn main(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["serve", port] => serve(port),
        ["fetch", address] => fetch(address).map(|page| print!("{page}")),
        ["limits"] => {
            print!("{}", limits());
            Ok(())
        }
        _ => Err(io::Error::other(
            "usage: serve PORT | fetch ADDRESS:PORT | limits",
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: &str) -> io::Result<()> {
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept()?;
        match answer(stream) {
            Ok(request) => println!("{peer}: {request}"),
            Err(error) => println!("{peer}: {error}"),
        }
    }
}

fn answer(mut stream: TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new((&stream).take(MAX_HEADER_BYTES));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && line.trim() != "" {
        line.clear();
    }
    let page = page();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    )?;
    Ok(request.trim().to_owned())
}

/// The body of `http://ADDRESS:PORT/`. Waits for a server that is still starting.
pub fn fetch(address: &str) -> io::Result<String> {
    let target = address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::other(format!("{address} is no address")))?;
    let mut stream = connect(&target)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(MAX_PAGE_BYTES).read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!(
            "{address} did not answer with a page"
        ))),
    }
}

/// A container runs before its server listens.
fn connect(target: &SocketAddr) -> io::Result<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect_timeout(target, PATIENCE) {
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(POLL);
            }
            other => return other,
        }
    }
}

fn page() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!(
        "Hello from a container!\n\nhost name   {}\nprocess     {}\n{}{}",
        host.trim(),
        std::process::id(),
        limits(),
        namespaces()
    )
}

/// The limits of this process's cgroup, as its own files tell them (v2, then v1).
fn limits() -> String {
    let first = |paths: [&str; 2]| {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        paths
            .iter()
            .find_map(|path| read(path))
            .map(|text| text.trim().to_owned())
    };
    let rows = [
        (
            "memory",
            first([
                "/sys/fs/cgroup/memory.max",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]),
        ),
        (
            "cpu",
            first([
                "/sys/fs/cgroup/cpu.max",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
            ]),
        ),
        (
            "processes",
            first(["/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"]),
        ),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<11} at most {value}");
        }
    }
    text
}

/// The namespaces of this process.
pub fn namespaces() -> String {
    let mut text = String::new();
    for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        if let Ok(target) = std::fs::read_link(format!("/proc/self/ns/{name}")) {
            let _ = writeln!(text, "namespace   {}", target.display());
        }
    }
    text
}
