//! Cases about what flows between processes, clients and the log.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use berth_keeper::protocol::{
    Event, FailureKind, LogTarget, ReplyBody, RequestBody, Target, UserRequest,
};

use crate::world::{Control, World, options, process, read_log, until};

/// Takes Docker's frames apart: the text of each stream.
fn unframe(mut bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut streams = (Vec::new(), Vec::new());
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let stream = if header[0] == 1 {
            &mut streams.0
        } else {
            &mut streams.1
        };
        stream.extend_from_slice(&rest[..length]);
        bytes = &rest[length..];
    }
    streams
}

fn read_all(client: &mut UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    all
}

fn read_until(client: &mut UnixStream, text: &str) -> String {
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(text) {
        let count = client.read(&mut piece).unwrap();
        assert!(
            count > 0,
            "no {text:?} in {:?}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

fn exec(
    control: &mut Control,
    name: &str,
    args: &[&str],
    terminal: bool,
    client: Option<&UnixStream>,
) -> ReplyBody {
    let body = RequestBody::Exec {
        exec: name.to_owned(),
        process: process(args, terminal),
        user: UserRequest::default(),
        console_size: terminal.then_some((11, 77)),
        attach: client.map(|_| options(true, !terminal)),
        open_stdin: client.is_some(),
    };
    control.request(body, client.as_slice())
}

pub fn input_and_output_are_exact(world: &World) {
    let mut container = world.shell("cat; echo done >&2; exit 3");
    (container.launch.open_stdin, container.launch.stdin_once) = (true, true);
    let log = container.log.clone();
    let mut client = container.attach(options(true, true));
    let mut control = container.start(&world.launcher);
    let text: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    let mut writer = client.try_clone().unwrap();
    let input = text.clone();
    let typing = std::thread::spawn(move || {
        writer.write_all(input.as_bytes()).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let (stdout, stderr) = unframe(&read_all(&mut client));
    typing.join().unwrap();
    assert!(stdout == text.as_bytes() && stderr == b"done\n");
    assert_eq!(control.exited().code, 3);
    assert!(read_log(&log) == (text, "done\n".to_owned()));
}

pub fn an_exec_has_its_own_streams_and_code(world: &World) {
    let mut control = world.shell("sleep 1000").start(&world.launcher);
    let (mut client, theirs) = UnixStream::pair().unwrap();
    let args = ["sh", "-c", "read x; echo got $x; echo bad >&2; exit 4"];
    let reply = exec(&mut control, "one", &args, false, Some(&theirs));
    assert!(matches!(reply, ReplyBody::ExecStarted { .. }), "{reply:?}");
    drop(theirs);
    client.write_all(b"this\n").unwrap();
    assert_eq!(
        unframe(&read_all(&mut client)),
        (b"got this\n".to_vec(), b"bad\n".to_vec())
    );
    // The state knows the code by the time that the client sees the end.
    let (mut other, state) = Control::connect(&control.dir.clone());
    assert_eq!(
        (state.execs[0].exec.as_str(), state.execs[0].code),
        ("one", Some(4))
    );
    assert_eq!(control.exec_exited("one"), 4);

    let reply = exec(&mut control, "two", &["/no/such"], false, None);
    assert!(
        matches!(&reply, ReplyBody::Failed(failure) if failure.kind == FailureKind::CommandNotFound),
        "{reply:?}"
    );
    exec(&mut other, "three", &["sleep", "1000"], false, None);
    let target = Target::Exec("three".to_owned());
    other.done(RequestBody::Signal { signal: 15, target }, &[]);
    assert_eq!(control.exec_exited("three"), 143);
    exec(&mut other, "four", &["sleep", "1000"], false, None);
    control.kill();
    assert_eq!(other.exec_exited("four"), 137);
}

pub fn a_daemonised_child_of_an_exec_lives_on(world: &World) {
    let container = world.shell("while [ ! -e /done ]; do sleep 0.01; done; exit 6");
    let mut control = container.start(&world.launcher);
    let (mut client, theirs) = UnixStream::pair().unwrap();
    let script =
        "(for i in 1 2 3 4 5; do sleep 0.02; echo later || exit; done; : > /done) & echo now";
    exec(
        &mut control,
        "bg",
        &["sh", "-c", script],
        false,
        Some(&theirs),
    );
    drop(theirs);
    assert_eq!(unframe(&read_all(&mut client)).0, b"now\n");
    assert_eq!(control.exited().code, 6);
}

pub fn a_terminal_is_resized_left_and_joined_again(world: &World) {
    let mut container = world.container(&["/bin/sh"], true);
    container.launch.open_stdin = true;
    container.launch.console_size = Some((33, 100));
    let log = container.log.clone();
    let mut client = container.attach(options(true, false));
    let mut control = container.start(&world.launcher);
    client.write_all(b"stty size; tty\n").unwrap();
    let seen = read_until(&mut client, "/dev/");
    assert!(seen.contains("33 100\r\n"), "{seen:?}");
    control.done(
        RequestBody::Resize {
            exec: None,
            rows: 50,
            columns: 132,
        },
        &[],
    );
    client.write_all(b"stty size\n").unwrap();
    read_until(&mut client, "50 132\r\n");
    client.write_all(b"\x10\x11").unwrap();
    read_all(&mut client);
    control.event(|event| matches!(event, Event::Detached { exec: None }).then_some(()));

    let (mut client, theirs) = UnixStream::pair().unwrap();
    let body = RequestBody::Attach {
        exec: None,
        options: options(true, false),
    };
    control.done(body, &[&theirs]);
    drop(theirs);
    client.write_all(b"echo a''gain\n").unwrap();
    read_until(&mut client, "again\r\n");
    let (mut second, theirs) = UnixStream::pair().unwrap();
    exec(&mut control, "tty", &["stty", "size"], true, Some(&theirs));
    drop(theirs);
    assert_eq!(read_all(&mut second), b"11 77\r\n");

    client.write_all(b"exit 12\n").unwrap();
    read_all(&mut client);
    assert_eq!(control.exited().code, 12);
    assert!(read_log(&log).0.contains("50 132\r\n"));
}

pub fn a_client_that_does_not_read_holds_up_the_container(world: &World) {
    let mut container =
        world.shell("yes 0123456789012345678901234567890123456789 | head -n 400000");
    let log = container.log.clone();
    let mut client = container.attach(options(false, true));
    let mut control = container.start(&world.launcher);
    let size = || std::fs::metadata(&log).map_or(0, |data| data.len());
    let mut last = 0;
    until("the log stands still", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = size();
        std::mem::replace(&mut last, now) == now && now > 0
    });
    // About 1 MiB of buffer, and what pipes and sockets hold.
    assert!(size() < 12_000_000, "{}", size());
    let (stdout, _) = unframe(&read_all(&mut client));
    assert_eq!(stdout.len(), 400_000 * 41);
    assert_eq!(control.exited().code, 0);
    assert_eq!(read_log(&log).0.len(), 400_000 * 41);
}

pub fn a_vanished_client_holds_up_nobody(world: &World) {
    let mut container =
        world.shell("yes 0123456789012345678901234567890123456789 | head -n 400000");
    let log = container.log.clone();
    let mut client = container.attach(options(true, true));
    let mut control = container.start(&world.launcher);
    client.read_exact(&mut [0; 1000]).unwrap();
    drop(client);
    assert_eq!(control.exited().code, 0);
    assert_eq!(read_log(&log).0.len(), 400_000 * 41);
}

pub fn a_late_reader_gets_everything_after_the_end(world: &World) {
    let mut container = world.shell("head -c 900000 /dev/zero | tr '\\0' x; exit 2");
    let mut client = container.attach(options(false, true));
    // Also the client that sends what nobody wants, and would be reset by a plain close.
    client.write_all(b"unwanted").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut control = container.start(&world.launcher);
    assert_eq!(control.exited().code, 2);
    control.event(|event| matches!(event, Event::Released).then_some(()));
    assert_eq!(unframe(&read_all(&mut client)).0.len(), 900_000);
    control.end();
}

pub fn rotated_logs_are_compressed_meanwhile(world: &World) {
    let script = "for i in $(seq 20000); do echo line $i; done; exit 1";
    let mut container = world.shell(script);
    let log = container.log.clone();
    container.launch.log = LogTarget::JsonFile {
        path: log.clone(),
        max_size_bytes: Some(200_000),
        max_files: 100,
        compress: true,
        attrs: Default::default(),
    };
    let mut control = container.start(&world.launcher);
    assert_eq!(control.exited().code, 1);
    let numbered = |number: u32, extension: &str| {
        std::path::PathBuf::from(format!("{}.{number}{extension}", log.display()))
    };
    until("the last file is compressed", || !numbered(1, "").exists());
    let mut all = String::new();
    let count = (1..100)
        .take_while(|number| numbered(*number, ".gz").exists())
        .count();
    assert!(count > 3, "{count} files");
    for number in (1..=u32::try_from(count).unwrap()).rev() {
        let file = std::fs::File::open(numbered(number, ".gz")).unwrap();
        flate2::read::GzDecoder::new(file)
            .read_to_string(&mut all)
            .unwrap();
    }
    all += &std::fs::read_to_string(&log).unwrap();
    let seen: Vec<_> = all
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].to_string())
        .collect();
    let expect: Vec<_> = (1..=20_000)
        .map(|number| format!("\"line {number}\\n\""))
        .collect();
    assert!(seen == expect, "{} lines in {count} files", seen.len());
}

pub fn a_flood_of_lines_is_logged_exactly(world: &World) {
    let line =
        "The quick brown fox jumps over the lazy dog, again and again, until the log is full.";
    let count = 300_000;
    let container = world.shell(&format!("yes '{line}' | head -n {count}; sleep 1000"));
    let log = container.log.clone();
    let mut control = container.start(&world.launcher);
    let bytes = count * (line.len() + 1);
    until("all is logged", || {
        let logged = fs::metadata(&log).map_or(0, |data| data.len());
        logged > bytes as u64 && read_log(&log).0.len() == bytes
    });
    control.kill();
    let text = read_log(&log).0;
    assert_eq!(text.len(), bytes);
    assert!(text.lines().all(|seen| seen == line));
}
