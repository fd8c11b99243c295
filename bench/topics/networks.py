"""Networks and published ports: what an operation takes, whether it takes more the more there
are, and whether packets notice."""

import contextlib

from table import interleaved, seconds
from topics.many import Workers
from topics.paths import published_ports
from traffic import DOOR, PORT, Server, ask, of_namespace, of_process

TITLE = "Many networks, containers and ports"
NOTE = (
    "Milliseconds; what is told of one of many is the mean. Below that the speed of a published "
    "port on 127.0.0.1 in % of the container's own address, at the same moment. A thousand "
    "containers and ten thousand ports have ours alone: a peer takes minutes for them, and runs "
    "two processes for each port."
)
COLUMNS = ["Docker"]
NETWORKS, EACH = 200, 20
CONTAINERS, WINDOW = 1000, 100
PORTS, FIRST_PORT = 10_000, 20_000
SOME = 5
OPERATIONS = [
    ("a running container is connected", "connect"),
    ("- disconnected", "disconnect"),
    ("a network is created", "create"),
    ("- removed", "remove"),
    ("a container is started with a published port", "publish"),
]
ALONE, AMONG_NETWORKS, AMONG_PORTS = "alone", f"{NETWORKS} networks", f"{PORTS} ports"
SPEEDS = {"rr": "round trips", "up": "throughput", "connections": "connections"}
ROWS = (
    OPERATIONS
    + [
        (f"a network is created, the first {EACH}", "networks: first"),
        (f"- the last {EACH} of {NETWORKS}", "networks: last"),
        ("- a running container is connected to the last one", "networks: connect"),
        ("- a container is created and started there", "networks: start"),
        ("- all are removed", "networks: remove"),
        (f"created and started on one network, the first {WINDOW}", "containers: first"),
        (f"- the last {WINDOW} of {CONTAINERS}", "containers: last"),
        ("- a running container is connected there", "containers: connect"),
        (f"started with {PORTS} published ports", "ports: start"),
        ("- one with a single port beside them", "ports: beside"),
        ("- removed with its ports", "ports: remove"),
    ]
    + [
        (f"%: {title}, {state}", f"{kind}, {state}")
        for kind, title in SPEEDS.items()
        for state in (ALONE, AMONG_NETWORKS, AMONG_PORTS)
    ]
)


def request(name, number=0, prefix=24):
    """Networks with subnets of their own: the pools of some engines end at 31. Their names come
    after `bridge`, so that published ports stay there."""
    subnet = f"10.{number // 256}.{number % 256}.0/{prefix}"
    return {"Name": name, "IPAM": {"Config": [{"Subnet": subnet}]}}


class Site:
    """An engine, and a running container on its bridge that publishes two ports."""

    def __init__(self, bench, engine, stack):
        self.table, self.engine, self.api = bench.table, engine, engine.api
        self.rounds = bench.rounds
        stack.callback(engine.api.close)
        self.identity = self.api.create_published([PORT, DOOR], "bridge")
        stack.callback(self.remove, self.identity)
        self.api.start(self.identity)
        shown = self.api.inspect(self.identity)
        stack.enter_context(Server(of_process(shown["State"]["Pid"])))
        self.own = shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        self.published = published_ports(shown)

    def remove(self, identity):
        # The engine may have hung up on a connection that was idle for so long.
        self.api.remove(identity, force=True)

    def take(self, what, work, number=1):
        self.table.add(what, self.engine.name, 1000 * seconds(work) / number)

    def connect(self, what, network):
        """Several times, so that there is a range."""
        for _ in range(SOME):
            self.take(what, lambda: self.api.connect_to(network, self.identity))
            self.api.disconnect_from(network, self.identity)

    def start(self, network):
        identity = self.api.create(network, ["sleep", "10000"])
        self.api.start(identity)
        return identity

    def operations(self, counts):
        made = self.api.create_published([PORT], "bridge")
        steps = [
            ("create", lambda: self.api.create_network(request("net"))),
            ("connect", lambda: self.api.connect_to("net", self.identity)),
            ("disconnect", lambda: self.api.disconnect_from("net", self.identity)),
            ("remove", lambda: self.api.remove_network("net")),
            ("publish", lambda: self.api.start(made)),
        ]
        for what, work in steps:
            took = seconds(work)
            if counts:
                self.table.add(what, self.engine.name, 1000 * took)
        self.remove(made)

    def speed(self, state):
        enter = of_namespace(self.engine.netns)
        for _ in range(max(3, self.rounds // 2)):
            for kind in SPEEDS:
                at = kind == "connections"
                own = ask(enter, kind, self.own, (PORT, DOOR)[at])
                published = ask(enter, kind, "127.0.0.1", self.published[at])
                self.table.add(f"{kind}, {state}", self.engine.name, 100 * published / own)

    def many_networks(self, number):
        names = [f"net-{index}" for index in range(number)]

        def create(names):
            for name in names:
                self.api.create_network(request(name, int(name.split("-")[1])))

        self.take("networks: first", lambda: create(names[:EACH]), EACH)
        create(names[EACH:-EACH])
        self.take("networks: last", lambda: create(names[-EACH:]), EACH)
        self.connect("networks: connect", names[-1])
        for _ in range(SOME):
            made = []
            self.take("networks: start", lambda: made.append(self.start(names[-1])))
            self.remove(made[0])
        self.speed(AMONG_NETWORKS)
        self.take(
            "networks: remove", lambda: [self.api.remove_network(name) for name in names], number
        )

    def many_containers(self):
        self.api.create_network(request("net", 0, 16))
        made = []

        def begin(count):
            made.extend(self.start("net") for _ in range(count))

        self.take("containers: first", lambda: begin(WINDOW), WINDOW)
        begin(CONTAINERS - 2 * WINDOW)
        self.take("containers: last", lambda: begin(WINDOW), WINDOW)
        self.connect("containers: connect", "net")
        with Workers(self.engine) as workers:
            workers.each(lambda api, it: api.remove(it, force=True), made)
        self.api.remove_network("net")

    def many_ports(self):
        numbers = range(FIRST_PORT, FIRST_PORT + PORTS)
        for _ in range(SOME):
            made = self.api.create_published(numbers, "bridge", FIRST_PORT)
            self.take("ports: start", lambda: self.api.start(made))
            beside = self.api.create_published([PORT], "bridge")
            self.take("ports: beside", lambda: self.api.start(beside))
            self.remove(beside)
            if "rr, " + AMONG_PORTS not in self.table.samples:
                self.speed(AMONG_PORTS)
            self.take("ports: remove", lambda: self.remove(made))


def measure(bench):
    with contextlib.ExitStack() as stack:
        sites = [
            Site(bench, engine, stack) for engine in bench.engines if engine is not bench.podman
        ]
        interleaved(bench.rounds, [site.operations for site in sites])
        for site in sites:
            site.speed(ALONE)
            site.many_networks(50 if bench.quick else NETWORKS)
        ours = sites[0]
        if not bench.quick:
            ours.many_containers()
        ours.many_ports()
