"""Measures both engines in turns and writes the table. Started by `bench/run`.

Each measurement is done once by each engine in each round, the engines' order changing from
round to round, so that what else the machine does meets all of them alike. The first round warms
up and is not counted.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import engines
from api import busybox_archive

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RUNNING = 20
# Between two measurements: what an engine does after its answer (both take away interfaces and
# namespaces in the background) shall not be counted as the other's time.
PAUSE_S = 0.15


class Table:
    """The samples of each measurement, by what was measured."""

    def __init__(self):
        self.samples = {}

    def add(self, what, who, value):
        self.samples.setdefault(what, {}).setdefault(who, []).append(value)

    def median(self, what, who):
        values = self.samples.get(what, {}).get(who)
        return statistics.median(values) if values else None

    def cell(self, what, who):
        values = self.samples.get(what, {}).get(who)
        if not values:
            return ""
        shown = [number(value) for value in (statistics.median(values), min(values), max(values))]
        return shown[0] if len(values) == 1 else f"{shown[0]} ({shown[1]}-{shown[2]})"

    def ratio(self, what, who, peer):
        ours, theirs = self.median(what, who), self.median(what, peer)
        return f"{theirs / ours:.1f}" if ours and theirs else ""


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(rounds, jobs):
    """Runs all jobs once a round. The first round is told to be one to forget."""
    for index in range(rounds + 1):
        for job in jobs if index % 2 else reversed(jobs):
            job(index > 0)
            time.sleep(PAUSE_S)


def cycles(table, engine, network):
    def job(counts):
        steps = engine.api.cycle(network)
        if counts:
            what = f"create+start+wait+rm, {network}"
            table.add(what, engine.name, 1000 * sum(steps))
            for step, took in zip(("create", "start", "wait", "rm"), steps):
                table.add(f"{what}: {step}", engine.name, 1000 * took)

    return job


def command(table, what, who, words):
    def run():
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def job(counts):
        took = seconds(run)
        if counts:
            table.add(what, who, 1000 * took)

    return job


def call(table, what, who, work):
    def job(counts):
        took = seconds(work)
        if counts:
            table.add(what, who, 1000 * took)

    return job


def client_lines(berth, docker):
    """(column, words) of each client with each engine."""
    if docker:
        yield "Docker", docker.client + ["-H", f"unix://{docker.socket}"]
        yield "docker on Berth", docker.client + ["-H", f"unix://{berth.socket}"]
    yield "Berth", [berth.binary, "-H", f"unix://{berth.socket}"]


def memory(table, engine):
    time.sleep(1)
    table.add("memory, nothing running", engine.name, engine.memory_mib())
    running = [engine.api.create("bridge", ["sleep", "1000"]) for _ in range(RUNNING)]
    for identity in running:
        engine.api.start(identity)
    time.sleep(1)
    table.add(f"memory, {RUNNING} running", engine.name, engine.memory_mib())
    for identity in running:
        engine.api.remove(identity, force=True)


def measure(table, rounds, berth, docker):
    both = [engine for engine in (berth, docker) if engine]
    archive = busybox_archive()
    for engine in both:
        engine.start()
        engine.api.load(archive)

    interleaved(rounds, [call(table, "_ping", e.name, e.api.ping) for e in both])
    for network in ("bridge", "none"):
        interleaved(rounds, [cycles(table, e, network) for e in both])

    ready = {engine.name: engine.api.create("none", ["sleep", "1000"]) for engine in both}
    for engine in both:
        engine.api.start(ready[engine.name])
    def execute(engine):
        return lambda: engine.api.exec(ready[engine.name], ["true"])
    interleaved(rounds, [call(table, "exec", e.name, execute(e)) for e in both])
    for engine in both:
        engine.api.remove(ready[engine.name], force=True)

    some = max(3, rounds // 2)
    clients = list(client_lines(berth, docker))
    floor = [command(table, "CLI version", who, words + ["version"]) for who, words in clients]
    interleaved(some, floor)
    for network in ("bridge", "none", "host"):
        run = ["run", "--rm", f"--network={network}", "busybox", "true"]
        what = f"CLI run --rm, {network}"
        interleaved(some, [command(table, what, who, words + run) for who, words in clients])

    for engine in both:
        memory(table, engine)
        engine.stop()

    def restart(engine):
        def job(counts):
            took = engine.start()
            engine.stop()
            if counts:
                table.add("daemon start", engine.name, 1000 * took)

        return job
    interleaved(max(3, rounds // 4), [restart(engine) for engine in both])


ROWS = [
    ("API: create+start+wait+rm, bridge", "create+start+wait+rm, bridge"),
    ("- of that create", "create+start+wait+rm, bridge: create"),
    ("- of that start", "create+start+wait+rm, bridge: start"),
    ("- of that wait", "create+start+wait+rm, bridge: wait"),
    ("- of that rm", "create+start+wait+rm, bridge: rm"),
    ("API: create+start+wait+rm, no network", "create+start+wait+rm, none"),
    ("- of that start", "create+start+wait+rm, none: start"),
    ("- of that wait", "create+start+wait+rm, none: wait"),
    ("API: exec `true`, to the end of its output", "exec"),
    ("API: `/_ping` (what measuring costs)", "_ping"),
    ("CLI: `run --rm busybox true`, bridge", "CLI run --rm, bridge"),
    ("CLI: the same, `--network none`", "CLI run --rm, none"),
    ("CLI: the same, `--network host`", "CLI run --rm, host"),
    ("CLI: `version` (what a client costs)", "CLI version"),
    ("daemon: start to the first answer, no containers", "daemon start"),
    ("memory (PSS) of the engine's processes, none running, MiB", "memory, nothing running"),
    (f"the same, {RUNNING} running, MiB", f"memory, {RUNNING} running"),
]


def report(table, rounds, versions):
    model = "processor unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = models[0] if models else platform.machine()
    load = os.getloadavg()[0]
    cgroups = "v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "v1 or hybrid"
    lines = [
        "# Benchmark",
        "",
        "Written by `bench/run`. Medians (range) in milliseconds, memory in MiB; the engines take",
        f"turns, {rounds} rounds (half of that for the command lines), with a pause of "
        f"{1000 * PAUSE_S:.0f} ms.",
        "Ratio: Docker's median in ours. \"docker on Berth\" is the real docker client on our daemon.",
        "",
        f"- {time.strftime('%Y-%m-%d')}, Linux {platform.release()}, cgroup {cgroups}, "
        f"{os.cpu_count()} processors ({model}), load {load:.1f}",
        *[f"- {version}" for version in versions],
        "",
        "| | Docker | Berth | ratio | docker on Berth | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for title, what in ROWS:
        if what not in table.samples:
            continue
        cells = [
            title,
            table.cell(what, "Docker"),
            table.cell(what, "Berth"),
            table.ratio(what, "Berth", "Docker"),
            table.cell(what, "docker on Berth"),
            table.ratio(what, "docker on Berth", "Docker"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(prog="bench/run")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-peer", action="store_true", help="Berth alone")
    parser.add_argument("--no-write", action="store_true", help="leave docs/benchmark.md alone")
    options = parser.parse_args()
    work = tempfile.mkdtemp(prefix="berth-bench-")
    table, made = Table(), []
    try:
        berth = engines.Berth(work, os.environ["BERTH_BIN"])
        made.append(berth)
        docker = None
        if not options.no_peer:
            docker = engines.Docker(work)
            made.append(docker)
        measure(table, options.rounds, berth, docker)
        text = report(table, options.rounds, [engine.version() for engine in made])
    finally:
        for engine in made:
            engine.close()
        engines.remove(work)
    sys.stdout.write(text)
    if not (options.no_write or options.no_peer):
        with open(os.path.join(PROJECT, "docs", "benchmark.md"), "w", encoding="utf-8") as file:
            file.write(text)


main()
