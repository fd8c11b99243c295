"""The OCI runtime alone: `RUNTIME run` of `true`, for ours, runc and crun.

Started by itself (see `measure`) it takes the times, in a mount namespace of its own: where the
host has both versions of cgroups mounted, the second is hidden there, because crun refuses such a
mix.
"""

import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from engines import Failed, execute, run
from images import unpack_busybox
from cgroups import second_hierarchies
from table import OURS, Table, interleaved, timed

TITLE = "The OCI runtime alone"
NOTE = "Milliseconds of the whole process."
COLUMNS = ["runc", "crun"]
ROWS = [("`RUNTIME run` of `true`, no network", "runtime run")]
MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
PLAIN = ["nosuid", "noexec", "nodev"]


def specification():
    """As `runc spec` has it, without a terminal."""
    capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    mount = lambda to, kind, options, source: {
        "destination": to,
        "type": kind,
        "source": source,
        "options": options,
    }
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                kind: capabilities for kind in ("bounding", "effective", "permitted")
            },
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", [], "proc"),
            mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"], "tmpfs"),
            mount(
                "/dev/pts",
                "devpts",
                ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
                "devpts",
            ),
            mount("/dev/shm", "tmpfs", PLAIN + ["mode=1777", "size=65536k"], "shm"),
            mount("/dev/mqueue", "mqueue", PLAIN, "mqueue"),
            mount("/sys", "sysfs", PLAIN + ["ro"], "sysfs"),
        ],
        "linux": {
            "namespaces": [
                {"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")
            ],
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    }


def measure(bench):
    script = os.path.join(HERE, "runtime.py")
    words = ["unshare", "--mount", "--propagation", "private", sys.executable, "-B", script]
    words += [str(bench.rounds), bench.berth.binary]
    found = subprocess.run(words, check=True, stdout=subprocess.PIPE)
    for who, values in json.loads(found.stdout).items():
        for value in values:
            bench.table.add("runtime run", who, value)


def works(words):
    """A runtime that is not there, or not able to run here, is left out."""
    try:
        run(words)
        return True
    except (FileNotFoundError, Failed):
        return False


def main(rounds, binary):
    for point in second_hierarchies():
        run(["umount", point])
    table = Table()
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as bundle:
        unpack_busybox(os.path.join(bundle, "rootfs"))
        with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8") as file:
            json.dump(specification(), file)
        jobs = []
        for who, words in ((OURS, [binary, "runtime"]), ("runc", ["runc"]), ("crun", ["crun"])):
            roots = ["--root", os.path.join(bundle, who.lower())]
            command = words + roots + ["run", "--bundle", bundle, f"bench-{os.getpid()}"]
            if works(command):
                jobs.append(timed(table, "runtime run", who, lambda it=command: execute(it)))
        interleaved(rounds, jobs)
    json.dump(table.samples.get("runtime run", {}), sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
