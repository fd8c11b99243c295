//! Reading the statistics' files, of both versions.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::{
    BlockIo, BlockIoEntry, Cpu, CpuUsage, Cpuset, Hugetlb, Memory, MemoryEntry, Pids, Pressure,
    Stats, Throttling,
};
use crate::cgroup::{Cgroup, Layout};

/// CPU times of version 1 are in these ticks a second, on every architecture (USER_HZ).
const TICKS_PER_SECOND: u64 = 100;

impl Cgroup {
    /// What it has used up to now.
    pub fn stats(&self) -> Stats {
        let files = Files { cgroup: self };
        match self.layout {
            Layout::V1(_) => version_1(&files),
            Layout::V2 { .. } => version_2(&files),
        }
    }
}

/// The cgroup's files, found by their controller.
struct Files<'a> {
    cgroup: &'a Cgroup,
}

impl Files<'_> {
    fn text(&self, controller: &str, file: &str) -> String {
        self.cgroup
            .directory(controller)
            .and_then(|directory| fs::read_to_string(directory.join(file)).ok())
            .unwrap_or_default()
    }

    /// 0 stands for what is absent and for `max`.
    fn number(&self, controller: &str, file: &str) -> u64 {
        self.text(controller, file).trim().parse().unwrap_or(0)
    }

    fn pressure(&self, file: &str) -> Option<Pressure> {
        pressure(&self.text("", file))
    }
}

fn version_1(files: &Files<'_>) -> Stats {
    let cpu = table(&files.text("cpu", "cpu.stat"));
    let ticks = table(&files.text("cpuacct", "cpuacct.stat"));
    let nanos = |key| get(&ticks, key) * (1_000_000_000 / TICKS_PER_SECOND);
    let raw = table(&files.text("memory", "memory.stat"));
    let entry = |part: &str| MemoryEntry {
        limit: files.number("memory", &format!("memory.{part}limit_in_bytes")),
        usage: files.number("memory", &format!("memory.{part}usage_in_bytes")),
        max: files.number("memory", &format!("memory.{part}max_usage_in_bytes")),
        failcnt: files.number("memory", &format!("memory.{part}failcnt")),
    };
    let hugetlb = page_sizes(files.cgroup.directory("hugetlb"), ".limit_in_bytes")
        .map(|size| {
            let number = |what: &str| files.number("hugetlb", &format!("hugetlb.{size}.{what}"));
            let stats = Hugetlb {
                usage: number("usage_in_bytes"),
                max: number("max_usage_in_bytes"),
                failcnt: number("failcnt"),
            };
            (size.clone(), stats)
        })
        .collect();
    let percpu = files.text("cpuacct", "cpuacct.usage_percpu");
    Stats {
        cpu: Cpu {
            usage: CpuUsage {
                total: files.number("cpuacct", "cpuacct.usage"),
                percpu: percpu.split_whitespace().flat_map(str::parse).collect(),
                kernel: nanos("system"),
                user: nanos("user"),
            },
            throttling: Throttling {
                periods: get(&cpu, "nr_periods"),
                throttled_periods: get(&cpu, "nr_throttled"),
                throttled_time: get(&cpu, "throttled_time"),
            },
            psi: None,
        },
        cpuset: cpuset(files, "cpuset.cpus", "cpuset.mems"),
        memory: Memory {
            cache: get(&raw, "cache"),
            usage: entry(""),
            swap: entry("memsw."),
            kernel: entry("kmem."),
            kernel_tcp: entry("kmem.tcp."),
            raw,
            psi: None,
        },
        pids: pids(files),
        blkio: BlockIo {
            io_service_bytes_recursive: block_io_v1(
                &files.text("blkio", "blkio.throttle.io_service_bytes_recursive"),
            ),
            io_serviced_recursive: block_io_v1(
                &files.text("blkio", "blkio.throttle.io_serviced_recursive"),
            ),
            psi: None,
        },
        hugetlb,
        ..Stats::default()
    }
}

fn version_2(files: &Files<'_>) -> Stats {
    let cpu = table(&files.text("", "cpu.stat"));
    let nanos = |key| get(&cpu, key) * 1000;
    let raw = table(&files.text("", "memory.stat"));
    let usage = MemoryEntry {
        limit: limit(&files.text("", "memory.max")),
        usage: files.number("", "memory.current"),
        max: files.number("", "memory.peak"),
        failcnt: get(&table(&files.text("", "memory.events")), "max"),
    };
    let hugetlb = page_sizes(files.cgroup.directory(""), ".max")
        .map(|size| {
            let events = table(&files.text("", &format!("hugetlb.{size}.events")));
            let stats = Hugetlb {
                usage: files.number("", &format!("hugetlb.{size}.current")),
                max: 0,
                failcnt: get(&events, "max"),
            };
            (size.clone(), stats)
        })
        .collect();
    let (bytes, operations) = block_io_v2(&files.text("", "io.stat"));
    Stats {
        cpu: Cpu {
            usage: CpuUsage {
                total: nanos("usage_usec"),
                percpu: Vec::new(),
                kernel: nanos("system_usec"),
                user: nanos("user_usec"),
            },
            throttling: Throttling {
                periods: get(&cpu, "nr_periods"),
                throttled_periods: get(&cpu, "nr_throttled"),
                throttled_time: nanos("throttled_usec"),
            },
            psi: files.pressure("cpu.pressure"),
        },
        cpuset: cpuset(files, "cpuset.cpus.effective", "cpuset.mems.effective"),
        memory: Memory {
            cache: get(&raw, "file"),
            usage,
            // Version 1 counts memory and swap together, so this does too.
            swap: MemoryEntry {
                limit: limit(&files.text("", "memory.swap.max")).saturating_add(usage.limit),
                usage: files.number("", "memory.swap.current") + usage.usage,
                max: 0,
                failcnt: get(&table(&files.text("", "memory.swap.events")), "fail"),
            },
            kernel: MemoryEntry::default(),
            kernel_tcp: MemoryEntry::default(),
            raw,
            psi: files.pressure("memory.pressure"),
        },
        pids: pids(files),
        blkio: BlockIo {
            io_service_bytes_recursive: bytes,
            io_serviced_recursive: operations,
            psi: files.pressure("io.pressure"),
        },
        hugetlb,
        ..Stats::default()
    }
}

fn pids(files: &Files<'_>) -> Pids {
    Pids {
        current: files.number("pids", "pids.current"),
        limit: files.number("pids", "pids.max"),
    }
}

fn cpuset(files: &Files<'_>, cpus: &str, mems: &str) -> Cpuset {
    let list = |file| crate::scheduling::set(files.text("cpuset", file).trim()).unwrap_or_default();
    Cpuset {
        cpus: list(cpus),
        mems: list(mems),
    }
}

/// `max` is the largest number, as runc has it.
fn limit(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// The page sizes that a directory has hugetlb files for.
fn page_sizes(directory: Option<PathBuf>, ending: &str) -> impl Iterator<Item = String> {
    let names = directory.and_then(|directory| fs::read_dir(directory).ok());
    names
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(move |entry| {
            let name = entry.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(ending)?;
            (!size.contains('.')).then(|| size.to_owned())
        })
}

/// Lines of `key value`.
fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

fn get(table: &BTreeMap<String, u64>, key: &str) -> u64 {
    table.get(key).copied().unwrap_or(0)
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Lines of `8:0 Read 4096`, and a total.
fn block_io_v1(text: &str) -> Vec<BlockIoEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = device(words.next()?)?;
            Some(BlockIoEntry {
                major,
                minor,
                op: words.next()?.to_owned(),
                value: words.next()?.parse().ok()?,
            })
        })
        .collect()
}

/// Lines of `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`: bytes, and operations.
fn block_io_v2(text: &str) -> (Vec<BlockIoEntry>, Vec<BlockIoEntry>) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else {
            continue;
        };
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            let (list, op) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "dbytes" => (&mut bytes, "Discard"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                "dios" => (&mut operations, "Discard"),
                _ => continue,
            };
            list.push(BlockIoEntry {
                major,
                minor,
                op: op.to_owned(),
                value: value.parse().unwrap_or(0),
            });
        }
    }
    (bytes, operations)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same of `full`.
fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let stall = match words.next()? {
            "some" => &mut pressure.some,
            "full" => &mut pressure.full,
            _ => continue,
        };
        for word in words {
            let (key, value) = word.split_once('=')?;
            match key {
                "avg10" => stall.avg10 = value.parse().ok()?,
                "avg60" => stall.avg60 = value.parse().ok()?,
                "avg300" => stall.avg300 = value.parse().ok()?,
                "total" => stall.total = value.parse().ok()?,
                _ => {}
            }
        }
    }
    (!text.is_empty()).then_some(pressure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Hierarchy;
    use std::path::Path;

    fn write(directory: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
    }

    #[test]
    fn version_2_is_read() {
        let mount = tempfile::tempdir().unwrap();
        write(
            &mount.path().join("c"),
            &[
                (
                    "cpu.stat",
                    "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 1\n",
                ),
                (
                    "cpu.pressure",
                    "some avg10=1.50 avg60=0.00 avg300=0.00 total=7\n",
                ),
                ("memory.current", "100\n"),
                ("memory.max", "max\n"),
                ("memory.swap.current", "11\n"),
                ("memory.swap.max", "0\n"),
                ("memory.stat", "anon 4\nfile 9\n"),
                ("pids.current", "2\n"),
                ("pids.max", "max\n"),
                (
                    "io.stat",
                    "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
                ),
                ("cpuset.cpus.effective", "0-2,5\n"),
                ("hugetlb.2MB.max", "max\n"),
                ("hugetlb.2MB.current", "4\n"),
                ("hugetlb.2MB.rsvd.max", "max\n"),
            ],
        );
        let layout = Layout::V2 {
            mount: mount.path().into(),
        };
        let stats = Cgroup::at(layout, "c").stats();
        assert_eq!(
            (stats.cpu.usage.total, stats.cpu.usage.kernel),
            (5000, 2000)
        );
        assert_eq!(stats.cpu.throttling.throttled_periods, 1);
        assert_eq!(stats.cpu.psi.as_ref().unwrap().some.avg10, 1.5);
        assert_eq!(
            (stats.memory.usage.usage, stats.memory.usage.limit),
            (100, u64::MAX)
        );
        assert_eq!(
            (stats.memory.swap.usage, stats.memory.swap.limit),
            (111, u64::MAX)
        );
        assert_eq!(stats.memory.cache, 9);
        assert_eq!((stats.pids.current, stats.pids.limit), (2, 0));
        assert_eq!(stats.blkio.io_service_bytes_recursive[1].value, 2);
        assert_eq!(stats.cpuset.cpus, [0, 1, 2, 5]);
        assert_eq!(stats.hugetlb.len(), 1);
        assert_eq!(stats.hugetlb["2MB"].usage, 4);
    }

    #[test]
    fn version_1_is_read() {
        let mount = tempfile::tempdir().unwrap();
        write(
            &mount.path().join("c"),
            &[
                ("cpuacct.usage", "77\n"),
                ("cpuacct.usage_percpu", "70 7 \n"),
                ("cpuacct.stat", "user 1\nsystem 2\n"),
                ("memory.usage_in_bytes", "5\n"),
                ("memory.memsw.usage_in_bytes", "6\n"),
                ("memory.stat", "cache 8\n"),
                (
                    "blkio.throttle.io_service_bytes_recursive",
                    "8:0 Read 4096\nTotal 4096\n",
                ),
            ],
        );
        let controllers = ["cpuacct", "memory", "blkio", "cpu", "pids"];
        let layout = Layout::V1(vec![Hierarchy {
            mount: mount.path().into(),
            controllers: controllers.map(str::to_owned).to_vec(),
        }]);
        let stats = Cgroup::at(layout, "c").stats();
        assert_eq!(
            (stats.cpu.usage.total, &*stats.cpu.usage.percpu),
            (77, &[70, 7][..])
        );
        assert_eq!(stats.cpu.usage.kernel, 20_000_000);
        assert_eq!((stats.memory.usage.usage, stats.memory.swap.usage), (5, 6));
        assert_eq!(stats.memory.cache, 8);
        assert_eq!(stats.blkio.io_service_bytes_recursive.len(), 1);
        assert_eq!(stats.blkio.io_service_bytes_recursive[0].op, "Read");
    }
}
