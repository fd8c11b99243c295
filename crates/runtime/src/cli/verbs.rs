//! The commands and their options, as data: what the parser accepts and what the help shows.

/// An option.
pub(super) struct Flag {
    pub name: &'static str,
    /// One letter, or nothing.
    pub short: &'static str,
    pub takes: Takes,
    pub help: &'static str,
}

/// What follows an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Text,
    /// A whole number, which is checked when it is read.
    Number,
}

/// How many operands a command wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operands {
    Exactly(usize),
    AtLeast(usize),
    Between(usize, usize),
}

pub(super) struct Verb {
    pub name: &'static str,
    pub summary: &'static str,
    pub usage: &'static str,
    pub operands: Operands,
    /// What follows the first operand belongs to another program, dashes or not.
    pub passes_on: bool,
    /// In groups, since some share theirs.
    pub flags: &'static [&'static [Flag]],
}

impl Verb {
    pub fn flags(&self) -> impl Iterator<Item = &'static Flag> {
        self.flags.iter().flat_map(|group| group.iter())
    }
}

const fn switch(name: &'static str, short: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        short,
        takes: Takes::Nothing,
        help,
    }
}

const fn text(name: &'static str, short: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        short,
        takes: Takes::Text,
        help,
    }
}

const fn number(name: &'static str, short: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        short,
        takes: Takes::Number,
        help,
    }
}

/// Options before the command.
pub(super) const GLOBAL: &[Flag] = &[
    switch("debug", "", "log more"),
    text("log", "", "file to log to (default: standard error)"),
    text("log-format", "", "`text` (default) or `json`"),
    text("root", "", "directory of the containers' states"),
    switch(
        "systemd-cgroup",
        "",
        "let systemd make the cgroups; cgroupsPath is SLICE:PREFIX:NAME",
    ),
    text(
        "rootless",
        "",
        "ignore missing rights on cgroups: `true`, `false` or `auto` (default)",
    ),
];

const BUNDLE: &[Flag] = &[text(
    "bundle",
    "b",
    "directory of the bundle (default: the current one)",
)];

const CONSOLE: &[Flag] = &[
    text(
        "console-socket",
        "",
        "unix socket that is sent the terminal's master",
    ),
    text(
        "pidfd-socket",
        "",
        "unix socket that is sent a pidfd of the process",
    ),
    text("pid-file", "", "file to write the process's id to"),
    number(
        "preserve-fds",
        "",
        "pass on N descriptors after the standard ones and LISTEN_FDS",
    ),
];

const MAKE: &[Flag] = &[
    switch(
        "no-pivot",
        "",
        "move the root file system in place of pivot_root, for a host on a ramdisk",
    ),
    switch("no-new-keyring", "", "stay in the caller's session keyring"),
];

const DETACH: &[Flag] = &[switch("detach", "d", "return as soon as the process runs")];

const FORMAT: &[Flag] = &[text("format", "f", "`table` (default) or `json`")];

pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "create",
        summary: "make a container whose process waits for `start`",
        usage: "<container-id>",
        operands: Operands::Exactly(1),
        passes_on: false,
        flags: &[BUNDLE, CONSOLE, MAKE],
    },
    Verb {
        name: "delete",
        summary: "remove a container that has stopped or was not started",
        usage: "<container-id>",
        operands: Operands::Exactly(1),
        passes_on: false,
        flags: &[&[switch(
            "force",
            "f",
            "kill it first, and do not mind if there is none",
        )]],
    },
    Verb {
        name: "events",
        summary: "print what a container uses, and when it runs out of memory",
        usage: "<container-id>",
        operands: Operands::Exactly(1),
        passes_on: false,
        flags: &[&[
            text("interval", "", "time between statistics (default: 5s)"),
            switch("stats", "", "print statistics once"),
        ]],
    },
    Verb {
        name: "exec",
        summary: "run another process in a container",
        usage: "<container-id> <command> [argument...], or --process FILE <container-id>",
        operands: Operands::AtLeast(1),
        passes_on: true,
        flags: &[
            CONSOLE,
            DETACH,
            &[
                text("cwd", "", "directory to start in"),
                text(
                    "env",
                    "e",
                    "NAME=VALUE to add to the environment; may be repeated",
                ),
                switch("tty", "t", "give the process a terminal"),
                text("user", "u", "UID or UID:GID"),
                number("additional-gids", "g", "another group; may be repeated"),
                text("process", "p", "file with the whole `process` as JSON"),
                text("process-label", "", "SELinux label"),
                text("apparmor", "", "AppArmor profile"),
                switch(
                    "no-new-privs",
                    "",
                    "never gain privileges by executing a file",
                ),
                text("cap", "c", "capability to add; may be repeated"),
                text(
                    "cgroup",
                    "",
                    "[CONTROLLER:]PATH below the container's cgroup; may be repeated",
                ),
                switch("ignore-paused", "", "also when the container is paused"),
            ],
        ],
    },
    Verb {
        name: "features",
        summary: "print what this runtime can do, as JSON (OCI runtime specification, features.md)",
        usage: "",
        operands: Operands::Exactly(0),
        passes_on: false,
        flags: &[],
    },
    Verb {
        name: "kill",
        summary: "signal a container's first process",
        usage: "<container-id> [signal (default: SIGTERM)]",
        operands: Operands::Between(1, 2),
        passes_on: false,
        flags: &[&[switch("all", "a", "signal every process of the container")]],
    },
    Verb {
        name: "list",
        summary: "list the containers of --root",
        usage: "",
        operands: Operands::Exactly(0),
        passes_on: false,
        flags: &[FORMAT, &[switch("quiet", "q", "only the ids")]],
    },
    Verb {
        name: "pause",
        summary: "stop all processes of a container where they are",
        usage: "<container-id>",
        operands: Operands::Exactly(1),
        passes_on: false,
        flags: &[],
    },
    Verb {
        name: "ps",
        summary: "list the processes of a container",
        usage: "<container-id> [option of ps(1)...]",
        operands: Operands::AtLeast(1),
        passes_on: true,
        flags: &[FORMAT],
    },
    Verb {
        name: "resume",
        summary: "let the processes of a paused container go on",
        usage: "<container-id>",
        operands: Operands::Exactly(1),
        passes_on: false,
        flags: &[],
    },
    Verb {
        name: "run",
        summary: "create and start a container, and wait for its end",
        usage: "<container-id>",
        operands: Operands::Exactly(1),
        passes_on: false,
        flags: &[
            BUNDLE,
            CONSOLE,
            MAKE,
            DETACH,
            &[
                switch(
                    "keep",
                    "",
                    "leave the stopped container for `state` and `delete`",
                ),
                switch(
                    "no-subreaper",
                    "",
                    "do not become the parent of the container's orphans",
                ),
            ],
        ],
    },
    Verb {
        name: "spec",
        summary: "write a config.json to start from",
        usage: "",
        operands: Operands::Exactly(0),
        passes_on: false,
        flags: &[
            BUNDLE,
            &[switch("rootless", "", "for a user who is not root")],
        ],
    },
    Verb {
        name: "start",
        summary: "let the process of a created container run",
        usage: "<container-id>",
        operands: Operands::Exactly(1),
        passes_on: false,
        flags: &[],
    },
    Verb {
        name: "state",
        summary: "print a container's state, as JSON",
        usage: "<container-id>",
        operands: Operands::Exactly(1),
        passes_on: false,
        flags: &[],
    },
    Verb {
        name: "update",
        summary: "change the limits of a container",
        usage: "<container-id>",
        operands: Operands::Exactly(1),
        passes_on: false,
        flags: &[&[
            text(
                "resources",
                "r",
                "file with `resources` as JSON, `-` for standard input; the other options do not count then",
            ),
            number("blkio-weight", "", "share of block I/O, 10 to 1000"),
            text("cpu-period", "", "period of --cpu-quota in microseconds"),
            text("cpu-quota", "", "microseconds of CPU time in each period"),
            text(
                "cpu-burst",
                "",
                "microseconds that may be saved up beyond the quota",
            ),
            text("cpu-share", "", "share of CPU time against other cgroups"),
            text(
                "cpu-rt-period",
                "",
                "period of --cpu-rt-runtime in microseconds",
            ),
            text(
                "cpu-rt-runtime",
                "",
                "microseconds of realtime CPU time in each period",
            ),
            text("cpuset-cpus", "", "processors to use, such as 0-2,7"),
            text("cpuset-mems", "", "memory nodes to use"),
            text(
                "kernel-memory",
                "",
                "ignored: kernels do not have it any more",
            ),
            text(
                "kernel-memory-tcp",
                "",
                "ignored: kernels do not have it any more",
            ),
            text("memory", "", "memory limit in bytes, or with k, m, g"),
            text("cpu-idle", "", "1: only run when nothing else wants to"),
            text(
                "memory-reservation",
                "",
                "memory to be left with when the host is short",
            ),
            text(
                "memory-swap",
                "",
                "limit of memory and swap together; -1: no limit",
            ),
            number("pids-limit", "", "number of processes and threads"),
            text("l3-cache-schema", "", "refused: Intel RDT"),
            text("mem-bw-schema", "", "refused: Intel RDT"),
        ]],
    },
];
