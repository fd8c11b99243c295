"""The daemon: how soon it answers, and what it takes of the memory."""

import time

from table import OURS, interleaved

TITLE = "The daemon"
NOTE = (
    "Start: milliseconds to the first answer. Memory: MiB, the proportional set size (PSS) of all "
    "processes of the engine, without those of the containers."
)
COLUMNS = ["Docker", "Podman"]
RUNNING = (50, 500)
STOPPED = (100, 1000)
ROWS = (
    [("start, no containers", "start, 0")]
    + [(f"start, {number} stopped containers", f"start, {number}") for number in STOPPED]
    + [("memory, none running", "memory, 0")]
    + [(f"memory, {number} running", f"memory, {number}") for number in RUNNING]
)
# What an engine begins after its answers, and what it gives back, is over then.
SETTLE_S = 4


def starts(bench, number, engines):
    def restart(engine):
        def job(counts):
            took = engine.start()
            engine.stop()
            if counts:
                bench.table.add(f"start, {number}", engine.name, 1000 * took)

        return job

    for engine in engines:
        engine.stop()
    interleaved(max(3, bench.rounds // 3), [restart(engine) for engine in engines])
    for engine in engines:
        engine.start()


def memory(bench, engine, number):
    time.sleep(SETTLE_S)
    bench.table.add(f"memory, {number}", engine.name, engine.memory_mib())


def measure(bench):
    """Peers take part up to a size that they reach in a minute."""
    all_of_them = bench.engines
    starts(bench, 0, all_of_them)
    for engine in all_of_them:
        memory(bench, engine, 0)
    made = {engine.name: [] for engine in all_of_them}

    def run(engine, number):
        while len(made[engine.name]) < number:
            identity = engine.api.create("bridge", ["sleep", "10000"])
            engine.api.start(identity)
            made[engine.name].append(identity)

    few, many = RUNNING
    for engine in all_of_them:
        run(engine, few)
        memory(bench, engine, few)
    if not bench.quick:
        run(bench.berth, many)
        memory(bench, bench.berth, many)

    # Stopped ones: those that ran, and more that are only made.
    for engine in all_of_them:
        for identity in made[engine.name]:
            engine.api.kill(identity)
    for number, engines in zip(STOPPED, (all_of_them, [bench.berth])):
        if bench.quick and number != STOPPED[0]:
            break
        for engine in engines:
            ours = made[engine.name]
            surplus = ours[number:]
            for identity in surplus:
                engine.api.remove(identity, force=True)
            del ours[number:]
            while len(ours) < number:
                ours.append(engine.api.create("bridge", ["true"]))
        starts(bench, number, engines)
    for engine in all_of_them:
        for identity in made[engine.name]:
            engine.api.remove(identity, force=True)
    assert bench.table.median("start, 0", OURS), "our own daemon was measured"
