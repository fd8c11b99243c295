"""Measures the engines in turns, and writes the table and the chart. Started by `bench/run`.

What is measured stands in `topics`, one file each; how samples are taken in `table`.
"""

import argparse
import os
import platform
import sys
import tempfile
import time

import api
import chart
import engines
import images
import topics
from table import PAUSE_S, Table

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CHART = [
    ("run --rm busybox true", "run --rm, bridge", "ms"),
    ("the same, no network", "run --rm, none", "ms"),
    ("create+start+wait+rm by the API", "cycle, bridge", "ms"),
    ("exec", "exec", "ms"),
    ("stop", "stop", "ms"),
    ("each of 100 containers", "one: total", "ms"),
    ("1 GB of lines into the log", "logs: write", "s"),
    ("the same read back", "logs: read", "s"),
    ("pull of 400 MB", "pull", "s"),
    ("load of 400 MB", "load", "s"),
    ("start of the daemon", "start, 0", "ms"),
    ("memory, none running", "memory, 0", "MiB"),
    ("memory, 50 running", "memory, 50", "MiB"),
]


class Bench:
    """What a topic is given."""

    def __init__(self, options, work):
        self.rounds = options.rounds or (5 if options.quick else 20)
        self.quick = options.quick
        self.work = work
        self.table = Table()
        self.engines = []
        try:
            self.berth = self._has(engines.Berth(work, os.environ["BERTH_BIN"]))
            self.docker = None if options.no_peer else self._has(engines.Docker(work))
            podman = not options.no_peer and engines.Podman.is_there()
            self.podman = self._has(engines.Podman(work)) if podman else None
        except BaseException:
            self.close()
            raise

    def _has(self, engine):
        self.engines.append(engine)
        return engine

    def start(self):
        """Podman is left out where it does not run (its later versions want cgroup v2)."""
        archive = images.busybox_archive()
        for engine in list(self.engines):
            try:
                engine.start()
                engine.api.load(archive)
                engine.api.cycle("bridge")
            except (engines.Failed, OSError, api.Refused) as error:
                if engine is not self.podman:
                    raise
                print(f"bench: without Podman: {error}", file=sys.stderr)
                self.engines.remove(engine)
                self.podman = None
                engine.close()

    def close(self):
        for engine in self.engines:
            engine.close()


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cgroups = "v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "v1 or hybrid"
    return (
        f"{time.strftime('%Y-%m-%d')}, Linux {platform.release()}, cgroup {cgroups}, "
        f"{os.cpu_count()} processors ({models[0] if models else platform.machine()}), "
        f"load {os.getloadavg()[0]:.1f} at the end"
    )


def report(bench, versions, chosen):
    lines = [
        "# Benchmark",
        "",
        "Written by `bench/run`. Medians (range); the engines take turns, "
        f"{bench.rounds} rounds (fewer",
        f"where a round is long), with a pause of {1000 * PAUSE_S:.0f} ms. Ratio: the peer's median "
        "in ours.",
        "",
        f"- {machine()}",
        *[f"- {version}" for version in versions],
    ]
    for topic in chosen:
        lines += ["", f"## {topic.TITLE}", "", topic.NOTE, ""]
        lines += bench.table.lines(topic.ROWS, ["Berth", *topic.COLUMNS])
    return "\n".join(lines) + "\n"


def write(name, text):
    with open(os.path.join(PROJECT, "docs", name), "w", encoding="utf-8") as file:
        file.write(text)


def main():
    names = {topic.__name__.rsplit(".", 1)[-1]: topic for topic in topics.ALL}
    parser = argparse.ArgumentParser(prog="bench/run")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="few rounds; the docs are left alone")
    parser.add_argument("--only", choices=names, action="append", help="one topic; may be repeated")
    parser.add_argument("--no-peer", action="store_true", help="Berth alone")
    parser.add_argument("--no-write", action="store_true", help="leave the docs alone")
    options = parser.parse_args()
    chosen = [topic for name, topic in names.items() if not options.only or name in options.only]
    work = tempfile.mkdtemp(prefix="berth-bench-")
    bench = None
    try:
        bench = Bench(options, work)
        bench.start()
        for topic in chosen:
            topic.measure(bench)
        versions = [engine.version() for engine in bench.engines]
        text = report(bench, versions, chosen)
    except (engines.Failed, api.Refused, TimeoutError) as error:
        raise SystemExit(f"bench: {error}") from None
    finally:
        if bench:
            bench.close()
        engines.remove(work)
    sys.stdout.write(text)
    if options.only or options.quick or options.no_write or options.no_peer:
        return
    write("benchmark.md", text)
    peers = [engine.name for engine in bench.engines[1:]]
    caption = "Medians of one run of bench/run on one machine; shorter is better. See docs/benchmark.md."
    write("benchmark.svg", chart.draw(bench.table, CHART, peers, caption))


main()
