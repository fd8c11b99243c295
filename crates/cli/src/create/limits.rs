//! The flags of `create` and `run` that `update` has, too.

use crate::flags::{Flag, Kind};

pub const CPU_PERIOD: Flag = Flag::int(
    "cpu-period",
    "Period of the CPU's scheduler in microseconds",
);
pub const CPU_QUOTA: Flag = Flag::int("cpu-quota", "Quota of the CPU's scheduler in microseconds");
pub const CPU_RT_PERIOD: Flag = Flag::int(
    "cpu-rt-period",
    "Period of the real-time scheduler in microseconds",
);
pub const CPU_RT_RUNTIME: Flag = Flag::int(
    "cpu-rt-runtime",
    "Runtime of the real-time scheduler in microseconds",
);
pub const CPU_SHARES: Flag = Flag::int("cpu-shares", "Relative weight of the CPU").short('c');
pub const CPUS: Flag = Flag::of("cpus", Kind::Decimal, "How many CPUs may be used");
pub const CPUSET_CPUS: Flag = Flag::text("cpuset-cpus", "The CPUs that may be used (0-3, 0,1)");
pub const CPUSET_MEMS: Flag = Flag::text(
    "cpuset-mems",
    "The memory nodes that may be used (0-3, 0,1)",
);
pub const MEMORY: Flag = Flag::of("memory", Kind::Bytes, "Limit of the memory").short('m');
pub const MEMORY_RESERVATION: Flag = Flag::of(
    "memory-reservation",
    Kind::Bytes,
    "Soft limit of the memory",
);
pub const MEMORY_SWAP: Flag = Flag::of(
    "memory-swap",
    Kind::SwapBytes,
    "Limit of memory and swap together: '-1' for no limit of the swap",
);
pub const PIDS_LIMIT: Flag = Flag::int(
    "pids-limit",
    "How many processes there may be (-1 for no limit)",
);
pub const RESTART: Flag = Flag::text("restart", "When to start again after the end");
