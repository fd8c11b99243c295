"""The name server of a container: how soon it answers, and how many questions a second."""

import contextlib
import json
import sys

from engines import run
from table import interleaved
from traffic import of_process

TITLE = "Names"
NOTE = (
    "Of a container's name server, asked by a program in the container's network, which takes a "
    "part of the processors: microseconds from a question to its answer, one after another (the "
    "median of each sample), and answers a second with 64 questions under way. Few: two containers "
    "on the network. Many: 50 with 100 names each."
)
COLUMNS = ["Docker"]
CONTAINERS, NAMES = 50, 100
KINDS = {"A": "an address", "AAAA": "an address of IPv6 that it has not", "PTR": "a name"}
ROWS = [
    row
    for size in ("few", "many")
    for row in [
        *[(f"{size}: µs to {title}", f"{size}: {kind}") for kind, title in KINDS.items()],
        (f"{size}: answers/s", f"{size}: rate"),
    ]
]

CLIENT = """
import json, random, socket, struct, sys, time
kind, names = sys.argv[1], json.loads(sys.argv[2])
number = {"A": 1, "AAAA": 28, "PTR": 12, "rate": 1}[kind]
def question(index, name):
    labels = b"".join(bytes([len(it)]) + it.encode() for it in name.split("."))
    return struct.pack(">6H", index, 0x100, 1, 0, 0, 0) + labels + struct.pack(">B2H", 0, number, 1)
random.Random(1).shuffle(names)
questions = [question(index, name) for index, name in enumerate(names)]
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.settimeout(5)
server.connect(("127.0.0.11", 53))
if kind == "rate":
    done, turn, began = 0, 0, time.perf_counter()
    for _ in range(64):
        server.send(questions[turn % len(questions)])
        turn += 1
    while time.perf_counter() - began < 0.5:
        for _ in range(64):
            server.recv(4096)
            server.send(questions[turn % len(questions)])
            turn += 1
        done += 64
    print(done / (time.perf_counter() - began))
else:
    took = []
    for turn in range(1000):
        asked = questions[turn % len(questions)]
        began = time.perf_counter()
        server.send(asked)
        answer = server.recv(4096)
        took.append(time.perf_counter() - began)
        assert answer[:2] == asked[:2] and answer[3] & 15 == 0, "the name is known"
    print(1e6 * sorted(took)[len(took) // 2])
"""


class Zone:
    """A network of an engine, with containers of several names each."""

    def __init__(self, engine, stack, size, containers, names):
        self.engine, self.size, api = engine, size, engine.api
        network = f"bench-{size}"
        api.create_network({"Name": network})
        stack.callback(api.remove_network, network)
        self.names, self.addresses = [], []
        for number in range(containers):
            aliases = [f"{size}-{number}-{index}" for index in range(names)]
            self.names += aliases
            self.made = api.create_named(network, aliases)
            stack.callback(api.remove, self.made, force=True)
            api.start(self.made)
            shown = api.inspect(self.made)
            address = shown["NetworkSettings"]["Networks"][network]["IPAddress"]
            self.addresses.append(".".join(reversed(address.split("."))) + ".in-addr.arpa")
        self.enter = of_process(shown["State"]["Pid"])

    def job(self, table, kind):
        about = self.addresses if kind == "PTR" else self.names
        words = [*self.enter, sys.executable, "-c", CLIENT, kind, json.dumps(about)]

        def job(counts):
            found = float(run(words))
            if counts:
                table.add(f"{self.size}: {kind}", self.engine.name, found)

        return job


def measure(bench):
    with contextlib.ExitStack() as stack:
        engines = [engine for engine in bench.engines if engine is not bench.podman]
        for engine in engines:
            stack.callback(engine.api.close)
        for size, containers, names in (("few", 2, 1), ("many", CONTAINERS, NAMES)):
            zones = [Zone(engine, stack, size, containers, names) for engine in engines]
            for kind in (*KINDS, "rate"):
                interleaved(bench.rounds, [zone.job(bench.table, kind) for zone in zones])
