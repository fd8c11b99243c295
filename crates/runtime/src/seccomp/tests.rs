//! Profiles are compiled and then run by the assembler's own interpreter.

use proptest::prelude::*;

use super::assembler::run;
use super::*;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;

fn profile(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

fn check(filter: &Filter, audit: u32, number: u32, args: [u64; 6], expect: u32) {
    let mut words = [0; 16];
    (words[0], words[1]) = (number, audit);
    for (index, arg) in args.into_iter().enumerate() {
        (words[5 + 2 * index], words[4 + 2 * index]) = halves(arg);
    }
    assert_eq!(
        run(&filter.program, &words).0,
        expect,
        "number {number} {args:x?}"
    );
}

fn x86_64(name: &str) -> u32 {
    number::x86_64(name).unwrap()
}

#[test]
fn a_list_of_names_is_allowed_and_the_rest_refused() {
    let filter = Filter::compile(&profile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],
            "syscalls":[{"names":["read","write","openat2","no_such_call"],"action":"SCMP_ACT_ALLOW"}]}"#,
    ))
    .unwrap();
    for (name, expect) in [
        ("read", ALLOW),
        ("write", ALLOW),
        ("openat2", ALLOW),
        ("open", EPERM),
    ] {
        check(&filter, X86_64.audit, x86_64(name), [0; 6], expect);
        check(
            &filter,
            X86.audit,
            number::x86(name).unwrap(),
            [0; 6],
            expect,
        );
    }
}

#[test]
fn numbers_beyond_the_profile_are_absent() {
    let filter = Filter::compile(&profile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["openat2"],"action":"SCMP_ACT_ALLOW"}]}"#,
    ))
    .unwrap();
    check(
        &filter,
        X86_64.audit,
        x86_64("openat2") + 1,
        [0; 6],
        RET_ENOSYS,
    );
    check(&filter, X86_64.audit, x86_64("read"), [0; 6], EPERM);
    check(
        &filter,
        X86_64.audit,
        X32_BIT | x86_64("openat2"),
        [0; 6],
        RET_ENOSYS,
    );
}

#[test]
fn foreign_architectures_are_killed() {
    let filter = Filter::compile(&profile(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#)).unwrap();
    check(&filter, 0x8000_0016, 3, [0; 6], RET_KILL_THREAD);
}

#[test]
fn an_entry_without_conditions_wins() {
    let filter = Filter::compile(&profile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]},
            {"names":["clone"],"action":"SCMP_ACT_ALLOW"}]}"#,
    ))
    .unwrap();
    check(&filter, X86_64.audit, x86_64("clone"), [9; 6], ALLOW);
}

#[test]
fn each_entry_has_its_own_errno() {
    let filter = Filter::compile(&profile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["bpf"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#,
    ))
    .unwrap();
    check(&filter, X86_64.audit, x86_64("bpf"), [0; 6], 0x0005_000d);
    check(&filter, X86_64.audit, x86_64("read"), [0; 6], RET_ENOSYS);
}

const NOTIFY: &str = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"listenerPath":"/run/agent",
    "flags":["SECCOMP_FILTER_FLAG_TSYNC","SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
    "syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#;

#[test]
fn an_agent_is_asked_about_the_calls_it_is_named_for() {
    let filter = Filter::compile(&profile(NOTIFY)).unwrap();
    check(&filter, X86_64.audit, x86_64("mkdir"), [0; 6], 0x7fc0_0000);
    check(&filter, X86_64.audit, x86_64("read"), [0; 6], ALLOW);
    assert!(filter.listener.is_some());
    assert_eq!(filter.flags, flag::LOG | flag::WAIT_KILLABLE_RECV);
}

#[test]
fn what_no_agent_could_be_asked_is_refused() {
    for (from, to) in [
        ("mkdir", "write"),
        ("ALLOW", "NOTIFY"),
        ("listenerPath", "comment"),
    ] {
        let error = Filter::compile(&profile(&NOTIFY.replace(from, to))).unwrap_err();
        assert!(error.message.contains("SCMP_ACT_NOTIFY"), "{from}");
    }
}

#[test]
fn the_default_profile_is_small_and_found_quickly() {
    let filter = Filter::compile(&default_profile(
        &crate::defaults::CAPABILITIES.iter().copied().collect(),
    ))
    .unwrap();
    assert!(
        filter.program.len() < 1500,
        "{} instructions",
        filter.program.len()
    );
    let mut words = [0; 16];
    words[1] = target(NATIVE).unwrap().audit;
    for number in 0..600 {
        words[0] = number;
        assert!(run(&filter.program, &words).1 < 60);
    }
}

fn holds(op: LinuxSeccompOperator, value: u64, two: u64, arg: u64) -> bool {
    match op {
        LinuxSeccompOperator::ScmpCmpNe => arg != value,
        LinuxSeccompOperator::ScmpCmpLt => arg < value,
        LinuxSeccompOperator::ScmpCmpLe => arg <= value,
        LinuxSeccompOperator::ScmpCmpEq => arg == value,
        LinuxSeccompOperator::ScmpCmpGe => arg >= value,
        LinuxSeccompOperator::ScmpCmpGt => arg > value,
        LinuxSeccompOperator::ScmpCmpMaskedEq => arg & value == two,
    }
}

fn operator() -> impl Strategy<Value = LinuxSeccompOperator> {
    prop_oneof![
        Just(LinuxSeccompOperator::ScmpCmpNe),
        Just(LinuxSeccompOperator::ScmpCmpLt),
        Just(LinuxSeccompOperator::ScmpCmpLe),
        Just(LinuxSeccompOperator::ScmpCmpEq),
        Just(LinuxSeccompOperator::ScmpCmpGe),
        Just(LinuxSeccompOperator::ScmpCmpGt),
        Just(LinuxSeccompOperator::ScmpCmpMaskedEq),
    ]
}

/// Few distinct halves, so that ties happen.
fn word() -> impl Strategy<Value = u64> {
    let half = || {
        prop_oneof![
            Just(0u64),
            Just(1),
            Just(2),
            Just(0xffff_ffff),
            Just(0x8000_0000)
        ]
    };
    (half(), half()).prop_map(|(high, low)| high << 32 | low)
}

proptest! {
    #[test]
    fn comparisons_are_of_64_bits(
        op in operator(), value in word(), two in word(), arg in word(),
        second in operator(), limit in word(), other in word(),
    ) {
        let make = |index: usize, op, value| {
            oci_spec::runtime::LinuxSeccompArgBuilder::default()
                .index(index).op(op).value(value).value_two(two).build().unwrap()
        };
        let (condition, and) = (make(1, op, value), make(3, second, limit));
        let mut entry = oci_spec::runtime::LinuxSyscall::default();
        entry.set_names(vec!["mmap".into()]).set_action(LinuxSeccompAction::ScmpActAllow);
        entry.set_args(Some(vec![condition, and]));
        let mut spec = LinuxSeccomp::default();
        spec.set_default_action(LinuxSeccompAction::ScmpActErrno).set_syscalls(Some(vec![entry]));
        spec.set_architectures(Some(vec![Arch::ScmpArchX86_64]));
        let filter = Filter::compile(&spec).unwrap();
        let both = holds(op, value, two, arg) && holds(second, limit, two, other);
        let expect = if both { ALLOW } else { EPERM };
        check(&filter, X86_64.audit, x86_64("mmap"), [7, arg, 7, other, 7, 7], expect);
    }

    /// The search tree agrees with a plain look-up, whatever the set of names.
    #[test]
    fn the_search_finds_every_number(chosen in proptest::collection::btree_set(0u32..470, 0..200)) {
        let names: Vec<String> = chosen
            .iter()
            .filter_map(|&n| syscalls::x86_64::Sysno::new(n as usize))
            .map(|n| n.name().to_owned())
            .collect();
        let numbers: Vec<u32> = names.iter().map(|n| x86_64(n)).collect();
        let mut entry = oci_spec::runtime::LinuxSyscall::default();
        entry.set_names(names).set_action(LinuxSeccompAction::ScmpActAllow);
        let mut spec = LinuxSeccomp::default();
        spec.set_default_action(LinuxSeccompAction::ScmpActErrno).set_syscalls(Some(vec![entry]));
        spec.set_architectures(Some(vec![Arch::ScmpArchX86_64]));
        let filter = Filter::compile(&spec).unwrap();
        let newest = numbers.iter().max().copied();
        for number in 0..500 {
            let expect = match newest {
                Some(newest) if number > newest => RET_ENOSYS,
                _ if numbers.contains(&number) => ALLOW,
                _ => EPERM,
            };
            check(&filter, X86_64.audit, number, [0; 6], expect);
        }
    }
}
