//! What goes in and comes out: attach, exec, logs.

use std::io::Write;
use std::os::unix::net::UnixStream;

use berth_docker::exec::CreateRequest as ExecRequest;
use berth_engine::{ExecStartOptions, LogOptions};

use crate::Case;
use crate::world::{PATIENCE, World, payload, read_to_end};

pub const ALL: &[Case] = &[
    ("attach_before_start_sees_all_output", attach_before_start),
    ("attach_passes_input_both_ways", attach_input),
    ("execs_run_report_codes_and_refusals", execs),
    ("follow_sees_every_line_and_ends_with_the_container", follow),
    ("a_long_log_is_read_back_whole_and_from_its_end", long_log),
];

fn attach_before_start(world: &World) {
    let id = world.create("", &["sh", "-c", "echo first; echo second >&2"]);
    let stream = world.attach(&id, false);
    world.start(&id);
    let text = payload(&read_to_end(stream));
    assert!(
        text.contains("first\n") && text.contains("second\n"),
        "{text:?}"
    );
    assert_eq!(world.exit_code(&id), 0);
}

fn attach_input(world: &World) {
    let open = |config: &mut berth_docker::container::Config| {
        config.open_stdin = true;
        config.stdin_once = true;
        config.attach_stdin = true;
    };
    let id = world
        .create_with("", &["cat"], |config, _| open(config))
        .unwrap();
    world.start(&id);
    let mut stream = world.attach(&id, true);
    stream.write_all(b"there and back\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(payload(&read_to_end(stream)), "there and back\n");
    assert_eq!(world.exit_code(&id), 0);

    let tty = world
        .create_with("", &["sh"], |config, _| {
            open(config);
            config.tty = true;
        })
        .unwrap();
    world.start(&tty);
    let mut stream = world.attach(&tty, true);
    world.run(world.engine().resize(&tty, 40, 120)).unwrap();
    stream.write_all(b"stty size; exit 5\n").unwrap();
    let text = String::from_utf8_lossy(&read_to_end(stream)).into_owned();
    assert!(text.contains("40 120"), "{text:?}");
    assert_eq!(world.exit_code(&tty), 5);
}

pub fn exec(world: &World, id: &str, command: &[&str]) -> (String, Option<i64>) {
    let engine = world.engine();
    let request = ExecRequest {
        attach_stdout: true,
        attach_stderr: true,
        cmd: Some(command.iter().map(|&word| word.to_owned()).collect()),
        ..ExecRequest::default()
    };
    let exec = world.run(engine.exec_create(id, request)).unwrap().id;
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    // A refusal is told on the stream, too.
    world
        .run(engine.exec_start(&exec, ExecStartOptions::default(), Some(theirs.into())))
        .ok();
    let text = payload(&read_to_end(ours));
    let inspect = world.run(engine.exec_inspect(&exec)).unwrap();
    assert!(!inspect.running, "the stream has ended");
    (text, inspect.exit_code)
}

fn execs(world: &World) {
    let id = world.create("", &["sleep", "1000"]);
    let engine = world.engine();
    let error = world
        .run(engine.exec_create(&id, ExecRequest::default()))
        .unwrap_err();
    assert_eq!(error.message, format!("container {id} is not running"));
    world.start(&id);
    assert_eq!(
        exec(world, &id, &["sh", "-c", "echo hi; exit 4"]),
        ("hi\n".into(), Some(4))
    );
    for _ in 0..20 {
        assert_eq!(exec(world, &id, &["false"]), (String::new(), Some(1)));
    }
    let (text, code) = exec(world, &id, &["nonsense"]);
    assert!(
        text.starts_with("OCI runtime exec failed: exec failed: unable to start container process: exec: \"nonsense\": executable file not found in $PATH"),
        "{text:?}"
    );
    assert_eq!(code, Some(127));
    let error = world.run(engine.exec_inspect("nope")).unwrap_err();
    assert_eq!(error.message, "No such exec instance: nope");
}

fn follow(world: &World) {
    let id = world
        .create_with(
            "",
            &[
                "sh",
                "-c",
                "for i in $(seq 2000); do echo line $i; done; sleep 0.2; echo last",
            ],
            |_, host| {
                host.log_config.driver = "json-file".into();
                host.log_config.config = Some(
                    [("max-size", "20k"), ("max-file", "20")]
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .into(),
                );
            },
        )
        .unwrap();
    world.start(&id);
    let log = world.logs(
        &id,
        LogOptions {
            follow: true,
            ..LogOptions::default()
        },
    );
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(
        (lines.len(), lines[0], lines[2000]),
        (2001, "line 1", "last")
    );
    let tail = world.logs(
        &id,
        LogOptions {
            tail: Some(1500),
            ..LogOptions::default()
        },
    );
    assert_eq!(tail.lines().next(), Some("line 502"));
}

fn long_log(world: &World) {
    const LINES: usize = 100_000;
    let id = world.create("", &["true"]);
    let file = std::fs::File::create(world.log_path(&id)).unwrap();
    let mut file = std::io::BufWriter::new(file);
    let mut expected = String::new();
    for number in 0..LINES {
        let line = format!("line {number:08} of a log over many of the reader's buffers");
        writeln!(
            file,
            r#"{{"log":"{line}\n","stream":"stdout","time":"2026-11-21T10:00:00.123456789Z"}}"#
        )
        .unwrap();
        expected.push_str(&line);
        expected.push('\n');
    }
    file.flush().unwrap();
    let read = |tail| {
        let options = LogOptions {
            tail,
            ..LogOptions::default()
        };
        world.logs(&id, options)
    };
    assert!(read(None) == expected, "not every line");
    let ten = expected.len() / LINES * 10;
    assert_eq!(read(Some(10)), expected[expected.len() - ten..]);
}
