//! Requests straight over a daemon's socket, one a connection: for loads that a program for each
//! request would slow down, and for telling an answer that was cut off from one that was whole.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// An answer that takes longer than this counts as hung.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `Null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The text of the streams in a body of Docker's frames (8 bytes of header each).
    pub fn demultiplexed(&self) -> String {
        let mut text = Vec::new();
        let mut rest = self.body.as_slice();
        while let Some((header, after)) = rest.split_at_checked(8) {
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let length = usize::try_from(length)
                .unwrap_or(usize::MAX)
                .min(after.len());
            text.extend_from_slice(&after[..length]);
            rest = &after[length..];
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Sends a request and reads the whole answer; that of an upgraded connection is all that comes
/// until its end.
///
/// # Errors
/// When there is no answer, or not all of it. An answer that does not come within half a minute is a
/// panic: nothing may hang.
#[track_caller]
pub fn request(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> io::Result<Response> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let is_exec = path.contains("/exec/") && path.ends_with("/start");
    let hijacks = is_exec && body.is_some_and(|body| body["Detach"] != true);
    let body = body.map_or_else(String::new, Value::to_string);
    let connection = if hijacks {
        "Connection: Upgrade\r\nUpgrade: tcp"
    } else {
        "Connection: close"
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: d\r\n{connection}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    match read(&mut stream) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            panic!("{method} {path}: no answer within {LIMIT:?}")
        }
        answer => answer,
    }
}

/// Reads until the connection's end, or the end of an upgrade's refusal, whose connection stays
/// open for the next request.
fn read(stream: &mut impl Read) -> io::Result<Response> {
    let mut answer = Vec::new();
    let mut buffer = vec![0; 65536];
    loop {
        let length = stream.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..length]);
        let is_counted =
            head(&answer).is_some_and(|(head, _)| header(&head, "content-length").is_some());
        if length == 0 || is_counted {
            match parse(&answer) {
                Some(response) => return Ok(response),
                None if length == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => (),
            }
        }
    }
}

/// An answer's head in small letters, and what follows it.
fn head(answer: &[u8]) -> Option<(String, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    Some((head, &answer[end + 4..]))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// `None`: it is not whole.
fn parse(answer: &[u8]) -> Option<Response> {
    let (head, rest) = head(answer)?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = if let Some(length) = header(&head, "content-length") {
        rest.get(..length.parse().ok()?)?.to_vec()
    } else if header(&head, "transfer-encoding") == Some("chunked") {
        chunks(rest)?
    } else {
        rest.to_vec()
    };
    Some(Response { status, body })
}

fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        rest = &rest[end + 2..];
        body.extend_from_slice(rest.get(..length)?);
        rest = rest.get(length + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_of_an_upgrade_ends_with_its_body() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs
            .write_all(b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno")
            .unwrap();
        ours.set_read_timeout(Some(LIMIT)).unwrap();
        let answer = read(&mut ours).unwrap();
        assert_eq!((answer.status, answer.text()), (409, "no".to_owned()));
        drop(theirs);
        assert!(read(&mut ours).is_err());
    }

    #[test]
    fn an_answer_that_was_cut_off_is_none() {
        let whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(parse(whole).unwrap().text(), "abc");
        for end in 0..whole.len() - 4 {
            assert_eq!(parse(&whole[..end]), None, "{end}");
        }
        let counted = b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nab";
        assert_eq!(parse(counted).unwrap().status, 404);
        assert_eq!(parse(&counted[..counted.len() - 1]), None);
    }
}
