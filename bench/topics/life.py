"""One container by the API: created, started, waited for, removed; and an exec in one."""

from table import interleaved, timed

TITLE = "One container, by the API"
NOTE = "Milliseconds."
COLUMNS = ["Docker", "Podman"]
ROWS = [
    ("create+start+wait+rm, bridge", "cycle, bridge"),
    ("- of that create", "cycle, bridge: create"),
    ("- of that start", "cycle, bridge: start"),
    ("- of that wait", "cycle, bridge: wait"),
    ("- of that rm", "cycle, bridge: rm"),
    ("create+start+wait+rm, no network", "cycle, none"),
    ("- of that start", "cycle, none: start"),
    ("- of that wait", "cycle, none: wait"),
    ("exec `true`, to the end of its output", "exec"),
    ("stop of one that ends at once on SIGTERM", "stop"),
    ("`/_ping` (what measuring costs)", "_ping"),
]


def cycles(table, engine, network):
    def job(counts):
        steps = engine.api.cycle(network)
        if counts:
            what = f"cycle, {network}"
            table.add(what, engine.name, 1000 * sum(steps))
            for step, took in zip(("create", "start", "wait", "rm"), steps):
                table.add(f"{what}: {step}", engine.name, 1000 * took)

    return job


def stops(table, engine):
    """The container is made and removed outside of the time."""

    def job(counts):
        identity = engine.api.create_obedient("bridge")
        engine.api.start(identity)
        engine.api.await_obedience(identity)
        timed(table, "stop", engine.name, lambda: engine.api.stop(identity))(counts)
        engine.api.remove(identity)

    return job


def measure(bench):
    table, rounds, engines = bench.table, bench.rounds, bench.engines
    interleaved(rounds, [timed(table, "_ping", e.name, e.api.ping) for e in engines])
    for network in ("bridge", "none"):
        interleaved(rounds, [cycles(table, e, network) for e in engines])
    interleaved(max(3, rounds // 2), [stops(table, e) for e in engines])

    ready = {engine.name: engine.api.create("none", ["sleep", "1000"]) for engine in engines}
    for engine in engines:
        engine.api.start(ready[engine.name])

    def execute(engine):
        return lambda: engine.api.exec(ready[engine.name], ["true"])

    interleaved(rounds, [timed(table, "exec", e.name, execute(e)) for e in engines])
    for engine in engines:
        engine.api.remove(ready[engine.name], force=True)
