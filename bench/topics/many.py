"""Many containers: one after another, eight at a time, and up to a thousand."""

import concurrent.futures

from table import seconds

TITLE = "Many containers, on a bridge"
NOTE = (
    "Milliseconds for each container (the whole time divided by their number), of one run; the "
    "containers end at once on SIGTERM."
)
COLUMNS = ["Docker", "Podman"]
AT_A_TIME = 8
# Up to so many are started, by us alone; the time of each of these last ones is taken.
UP_TO = 1000
WINDOW = 100
STEPS = ("create", "start", "stop", "rm")
ROWS = (
    [("one after another: created, started, stopped, removed", "one: total")]
    + [(f"- of that {step}", f"one: {step}") for step in STEPS]
    + [(f"{AT_A_TIME} at a time: created, started, stopped, removed", "some: total")]
    + [
        (f"created and started, the first {WINDOW}", "up to: first"),
        (f"created and started, the last {WINDOW} of {UP_TO} running", "up to: last"),
        (f"stopped and removed, all {UP_TO}, {AT_A_TIME} at a time", "up to: end"),
    ]
)


def one_after_another(table, engine, number):
    api, made = engine.api, []
    times = [
        seconds(lambda: made.extend(api.create_obedient("bridge") for _ in range(number))),
        seconds(lambda: [api.start(identity) for identity in made]),
    ]
    for identity in made:
        api.await_obedience(identity)
    times.append(seconds(lambda: [api.stop(identity) for identity in made]))
    times.append(seconds(lambda: [api.remove(identity) for identity in made]))
    for step, took in zip(STEPS, times):
        table.add(f"one: {step}", engine.name, 1000 * took / number)
    table.add("one: total", engine.name, 1000 * sum(times) / number)


class Workers:
    """Threads, each with a connection of its own."""

    def __init__(self, engine):
        self.free = [engine.api.another() for _ in range(AT_A_TIME)]
        self.pool = concurrent.futures.ThreadPoolExecutor(AT_A_TIME)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.shutdown()
        for api in self.free:
            api.close()

    def each(self, work, items):
        """`work(api, item)` for all items; the results."""

        def one(item):
            api = self.free.pop()
            try:
                return work(api, item)
            finally:
                self.free.append(api)

        return list(self.pool.map(one, items))


def some_at_a_time(table, engine, number):
    with Workers(engine) as workers:
        made = []
        took = seconds(
            lambda: made.extend(
                workers.each(lambda api, _: api.create_obedient("bridge"), range(number))
            )
        )
        took += seconds(lambda: workers.each(lambda api, it: api.start(it), made))
        workers.each(lambda api, it: api.await_obedience(it), made)
        took += seconds(lambda: workers.each(lambda api, it: api.stop(it), made))
        took += seconds(lambda: workers.each(lambda api, it: api.remove(it), made))
    table.add("some: total", engine.name, 1000 * took / number)


def up_to(table, engine, number, window):
    """Whether a container costs the more the more there are."""
    api, made = engine.api, []

    def begin(count):
        for _ in range(count):
            made.append(api.create_obedient("bridge"))
            api.start(made[-1])

    table.add("up to: first", engine.name, 1000 * seconds(lambda: begin(window)) / window)
    begin(number - 2 * window)
    table.add("up to: last", engine.name, 1000 * seconds(lambda: begin(window)) / window)
    with Workers(engine) as workers:
        workers.each(lambda api, it: api.await_obedience(it), made)
        took = seconds(lambda: workers.each(lambda api, it: api.stop(it), made))
        took += seconds(lambda: workers.each(lambda api, it: api.remove(it), made))
    table.add("up to: end", engine.name, 1000 * took / number)


def measure(bench):
    number = 20 if bench.quick else 100
    for engine in bench.engines:
        one_after_another(bench.table, engine, number)
        some_at_a_time(bench.table, engine, number)
    if not bench.quick:
        up_to(bench.table, bench.berth, UP_TO, WINDOW)
