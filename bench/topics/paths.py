"""What the ways of packets cost, beside the same way over a bridge that nobody looks after."""

import contextlib
import time

from engines import run
from table import PAUSE_S
from traffic import DOOR, PORT, Namespaces, Server, ask, of_namespace, of_process

TITLE = "The ways of packets"
DIRECT = "direct"
NOTE = (
    "Of one connection: round trips of 100 bytes a second, and Gbit/s; and connections one after "
    "another, a second. More is better here. Direct: two network namespaces on a bridge made by "
    "hand, without any rules; a published port is compared with the server's own address there. "
    "The containers are on a network of a user's with IPv4 and IPv6. Servers and clients run in "
    "the containers' networks, outside of the containers. Percentages are of direct in the same "
    "round."
)
COLUMNS = ["Docker", DIRECT]
KINDS = {
    "rr": "round trips/s",
    "up": "Gbit/s there",
    "down": "Gbit/s back",
    "connections": "connections/s",
}
# (title, way, kinds)
WAYS = [
    ("container to container", "across", ("rr", "up")),
    ("container to host", "out", ("rr", "up")),
    ("host to container", "in", ("rr", "up")),
    ("host to a port on 127.0.0.1", "local", ("rr", "up", "down", "connections")),
    ("host to a port on ::1", "local6", ("rr", "up", "down", "connections")),
    ("another host to a port, IPv4", "far", ("rr", "up", "connections")),
    ("another host to a port, IPv6", "far6", ("rr", "up", "connections")),
]
ROWS = [
    row
    for title, way, kinds in WAYS
    for kind in kinds
    for row in (
        (f"{title}: {KINDS[kind]}", f"{way}: {kind}"),
        ("- in % of direct", f"{way}: {kind}, share"),
    )
]
# Where another host finds the one that publishes.
HOST, HOST6 = "10.98.0.1", "fd00:98::1"
NETWORK = {
    "Name": "paths",
    "EnableIPv6": True,
    "IPAM": {"Config": [{"Subnet": "10.97.0.0/16"}, {"Subnet": "fd00:97::/64"}]},
}


def another_host(spaces, space):
    """Beside the one that is this namespace."""
    outside = spaces.make(f"{space}-far")
    spaces.pair((space, "far"), (outside, "near"))
    spaces.address(space, "far", f"{HOST}/24", f"{HOST6}/64")
    spaces.address(outside, "near", "10.98.0.2/24", "fd00:98::2/64")
    spaces.route(outside, HOST, HOST6)
    return of_namespace(outside)


class Direct:
    """`ends` of each way: the words that lead to the client, and who it asks."""

    name = DIRECT

    def __init__(self, spaces, stack):
        space = spaces.make("direct")
        run(["ip", "-n", space, "link", "add", "bridge", "up", "type", "bridge"])
        spaces.address(space, "bridge", "10.99.0.1/24", "fd00:99::1/64")
        ends = []
        for number in (2, 3):
            end = spaces.make(f"direct-{number}")
            spaces.pair((space, f"end{number}"), (end, "eth0"))
            run(["ip", "-n", space, "link", "set", f"end{number}", "master", "bridge"])
            spaces.address(end, "eth0", f"10.99.0.{number}/24", f"fd00:99::{number}/64")
            spaces.route(end, "10.99.0.1", "fd00:99::1")
            ends.append(of_namespace(end))
        spaces.forward(space)
        here, outside = of_namespace(space), another_host(spaces, space)
        for enter in (here, ends[1]):
            stack.enter_context(Server(enter))
        own, own6 = ("10.99.0.3", PORT, DOOR), ("fd00:99::3", PORT, DOOR)
        self.ends = {
            "across": (ends[0], own),
            "out": (ends[0], ("10.99.0.1", PORT, DOOR)),
            "in": (here, own),
            "local": (here, own),
            "local6": (here, own6),
            "far": (outside, own),
            "far6": (outside, own6),
        }


class Containers:
    """The same of an engine."""

    def __init__(self, engine, spaces, stack):
        self.name, api = engine.name, engine.api
        api.create_network(NETWORK)
        stack.callback(api.remove_network, NETWORK["Name"])
        made = [api.create_published([PORT, DOOR], NETWORK["Name"]) for _ in range(2)]
        for identity in made:
            stack.callback(api.remove, identity, force=True)
            api.start(identity)
        client, server = [api.inspect(identity) for identity in made]
        inside = [of_process(shown["State"]["Pid"]) for shown in (client, server)]
        here, outside = of_namespace(engine.netns), another_host(spaces, engine.netns)
        for enter in (here, inside[1]):
            stack.enter_context(Server(enter))
        network = server["NetworkSettings"]["Networks"][NETWORK["Name"]]
        own, gateway = network["IPAddress"], network["Gateway"]
        published = published_ports(server)
        self.ends = {
            "across": (inside[0], (own, PORT, DOOR)),
            "out": (inside[0], (gateway, PORT, DOOR)),
            "in": (here, (own, PORT, DOOR)),
            "local": (here, ("127.0.0.1", *published)),
            "local6": (here, ("::1", *published)),
            "far": (outside, (HOST, *published)),
            "far6": (outside, (HOST6, *published)),
        }


def published_ports(shown):
    """The numbers on the host, the same in both families here."""
    ports = shown["NetworkSettings"]["Ports"]
    return [int(ports[f"{port}/tcp"][0]["HostPort"]) for port in (PORT, DOOR)]


def job(table, subjects, way, kind):
    """All of them in a row, so that each is compared with what direct had just then."""

    def measure(turn):
        found = {}
        for subject in subjects if turn % 2 else reversed(subjects):
            enter, (host, port, door) = subject.ends[way]
            found[subject.name] = ask(enter, kind, host, door if kind == "connections" else port)
            time.sleep(PAUSE_S)
        for name, value in found.items():
            table.add(f"{way}: {kind}", name, value)
            if name != DIRECT:
                table.add(f"{way}: {kind}, share", name, 100 * value / found[DIRECT])

    return measure


def measure(bench):
    with contextlib.ExitStack() as stack:
        spaces = stack.enter_context(Namespaces())
        subjects = [Direct(spaces, stack)]
        for engine in bench.engines:
            if engine is not bench.podman:
                subjects.append(Containers(engine, spaces, stack))
                # It may have hung up by the end, when it is asked again.
                stack.callback(engine.api.close)
        jobs = [job(bench.table, subjects, way, kind) for _, way, kinds in WAYS for kind in kinds]
        for turn in range(max(3, bench.rounds // 2)):
            for one in jobs:
                one(turn)
