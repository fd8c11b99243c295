"""Command lines, as a person or a script runs them."""

from engines import execute
from table import interleaved, timed

TITLE = "Command lines"
NOTE = 'Milliseconds. "docker on Berth" is the real docker client on our daemon.'
COLUMNS = ["Docker", "docker on Berth", "Podman"]
ROWS = [
    ("`run --rm busybox true`, bridge", "run --rm, bridge"),
    ("the same, `--network none`", "run --rm, none"),
    ("the same, `--network host`", "run --rm, host"),
    ("`version` (what a client costs)", "version"),
]


def clients(bench):
    """(column, words) of each client with each engine."""
    yield "Berth", bench.berth.client
    if bench.docker:
        yield "Docker", bench.docker.client
        yield "docker on Berth", bench.docker.client_of(bench.berth)
    if bench.podman:
        yield "Podman", bench.podman.client


def command(table, what, who, words):
    return timed(table, what, who, lambda: execute(words))


def measure(bench):
    some = max(3, bench.rounds // 2)
    lines = list(clients(bench))
    interleaved(some, [command(bench.table, "version", who, words + ["version"]) for who, words in lines])
    for network in ("bridge", "none", "host"):
        run = ["run", "--rm", f"--network={network}", "busybox", "true"]
        what = f"run --rm, {network}"
        interleaved(some, [command(bench.table, what, who, words + run) for who, words in lines])
