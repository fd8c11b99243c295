//! What a container must not be able to do.

use std::os::unix::fs::symlink;

use berth_runtime::container::{self, Stdio};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use serde_json::json;

use crate::bundle::{Bundle, Pipes, check, shell};

crate::claims![
    masked_paths_are_empty_and_read_only_ones_refuse,
    the_filter_refuses_namespaces_and_mounts,
    links_of_the_image_do_not_lead_out,
    proc_behind_a_link_is_refused,
    no_descriptor_of_ours_is_passed_on,
    a_working_directory_behind_a_descriptor_is_refused,
    other_devices_are_out_of_reach,
    capabilities_that_the_host_lacks_are_clamped,
    an_ambient_capability_is_inheritable_or_left_out,
    the_reaper_cannot_be_looked_into,
    nothing_of_the_host_is_mounted,
    what_stands_in_a_terminals_place_is_not_opened,
];

fn masked_paths_are_empty_and_read_only_ones_refuse() {
    check(
        &shell("cat /proc/keys /proc/timer_list; ls /sys/firmware; stat -c %t:%T /proc/timer_list;
            echo 1 2>/dev/null >/proc/sys/kernel/panic || echo refused; touch /sys/x 2>/dev/null || echo refused"),
        "1:3\nrefused\nrefused\n",
    );
}

fn the_filter_refuses_namespaces_and_mounts() {
    let output = shell("unshare -n true; mount -t tmpfs x /tmp; grep Seccomp: /proc/self/status")
        .run()
        .unwrap();
    assert_eq!(output.stdout, "Seccomp:\t2\n");
    assert_eq!(
        output.stderr.matches("not permitted").count()
            + output.stderr.matches("ermission denied").count(),
        2,
        "{}",
        output.stderr
    );
}

fn links_of_the_image_do_not_lead_out() {
    let mut bundle = shell("cat /victim/file");
    let outside = bundle.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("source"), "bound\n").unwrap();
    symlink(&outside, bundle.lower().join("victim")).unwrap();
    let source = outside.join("source");
    bundle.spec["mounts"].as_array_mut().unwrap().push(json!(
        {"destination": "/victim/file", "type": "bind", "source": source, "options": ["rbind"]}
    ));
    check(&bundle, "bound\n");
    assert!(
        !outside.join("file").exists(),
        "the host's directory was written to"
    );
}

fn proc_behind_a_link_is_refused() {
    let bundle = Bundle::new(&["true"]);
    std::fs::remove_dir(bundle.lower().join("proc")).unwrap();
    symlink("/tmp", bundle.lower().join("proc")).unwrap();
    let error = bundle.run().err().unwrap();
    assert!(
        error
            .message
            .contains("must be mounted on ordinary directory"),
        "{}",
        error.message
    );
}

fn no_descriptor_of_ours_is_passed_on() {
    check(&Bundle::new(&["ls", "/proc/self/fd"]), "0\n1\n2\n3\n");
}

fn a_working_directory_behind_a_descriptor_is_refused() {
    for fd in 3..12 {
        let mut bundle = Bundle::new(&["ls", "."]);
        bundle.spec["process"]["cwd"] = json!(format!("/proc/self/fd/{fd}"));
        let error = bundle
            .run()
            .err()
            .expect("a directory of the host was entered");
        assert!(error.message.contains("chdir to cwd"), "{}", error.message);
        let bundle = Bundle::new(&[&format!("/proc/self/fd/{fd}/usr/bin/true")]);
        assert!(bundle.run().is_err(), "a program of the host was executed");
    }
}

fn other_devices_are_out_of_reach() {
    // 1:1 is /dev/mem.
    check(
        &shell(
            "mknod /dev/x c 1 1 && head -c 1 /dev/x 2>/dev/null || echo refused; head -c 0 /dev/null && echo ok",
        ),
        "refused\nok\n",
    );
}

fn capabilities_that_the_host_lacks_are_clamped() {
    let mut bundle = shell("grep CapBnd /proc/self/status");
    let all: Vec<String> = berth_runtime::caps::ALL
        .iter()
        .map(|c| format!("CAP_{c}"))
        .collect();
    bundle.spec["process"]["capabilities"] =
        json!({"bounding": all, "effective": all, "permitted": all});
    let (pipes, stdio) = crate::bundle::Pipes::new();
    let created = bundle.create(stdio).unwrap();
    let host = berth_sys::caps::bounding();
    let warned = created
        .warnings
        .iter()
        .any(|w| w.contains("unavailable capabilities"));
    assert_eq!(warned, host.0.count_ones() < 41, "{:?}", created.warnings);
    let container = created.start().unwrap();
    let (stdout, _) = pipes.read();
    assert_eq!(stdout, format!("CapBnd:\t{:016x}\n", host.0));
    berth_runtime::container::wait(container.pidfd()).unwrap();
    container.remove_cgroup().unwrap();
}

/// `runc spec` of Debian 12 writes such a specification.
fn an_ambient_capability_is_inheritable_or_left_out() {
    let mut bundle = shell("grep CapAmb /proc/self/status");
    let sets = &mut bundle.spec["process"]["capabilities"];
    sets["ambient"] = json!(["CAP_KILL", "CAP_CHOWN"]);
    sets["inheritable"] = json!(["CAP_CHOWN"]);
    let (pipes, stdio) = Pipes::new();
    let created = bundle.create(stdio).unwrap();
    let warning = "can't raise ambient capabilities that are not inheritable: CAP_KILL";
    assert_eq!(created.warnings, [warning]);
    let container = created.start().unwrap();
    let (stdout, stderr) = pipes.read();
    container::wait(container.pidfd()).unwrap();
    container.remove_cgroup().unwrap();
    assert_eq!(
        (stdout.as_str(), stderr.as_str()),
        ("CapAmb:\t0000000000000001\n", "")
    );
}

fn the_reaper_cannot_be_looked_into() {
    let mut bundle = shell(
        "readlink /proc/1/exe 2>/dev/null || echo refused; readlink /proc/1/fd/1 2>/dev/null || echo refused; head -c 1 /proc/1/mem 2>/dev/null || echo refused",
    );
    bundle.init = true;
    check(&bundle, "refused\nrefused\nrefused\n");
}

fn nothing_of_the_host_is_mounted() {
    let output = shell("cat /proc/self/mountinfo").run().unwrap();
    for line in output.stdout.lines() {
        let point = line.split(' ').nth(4).unwrap();
        let known = point == "/"
            || ["/proc", "/dev", "/sys"]
                .iter()
                .any(|p| point.starts_with(p));
        assert!(known, "{line}");
    }
}

fn what_stands_in_a_terminals_place_is_not_opened() {
    let mut bundle = Bundle::new(&["true"]);
    let place = bundle.directory.path().join("pts");
    std::fs::create_dir(&place).unwrap();
    let planted = place.join("ptmx");
    rustix::fs::mknodat(CWD, &planted, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let reader = rustix::fs::open(&planted, flags, Mode::empty()).unwrap();
    bundle.spec["process"]["terminal"] = json!(true);
    bundle.mount(json!({"destination": "/dev/pts", "source": place, "options": ["bind"]}));
    let error = bundle.create(Stdio::Terminal { size: None }).err().unwrap();
    assert!(error.message.ends_with("/dev/pts is no devpts"), "{error}");
    // A fifo that was opened for writing hangs up.
    let mut polled = [PollFd::new(&reader, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut polled, Some(&at_once)).unwrap(), 0);
}
