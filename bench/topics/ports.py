"""What a published port costs: round trips and throughput by 127.0.0.1 and a published port,
beside the same by the container's own address."""

import subprocess
import sys

from engines import run
from table import interleaved

TITLE = "A published port on 127.0.0.1"
NOTE = (
    "Of one connection from the host: round trips of 100 bytes a second, and Gbit/s each way. More "
    "is better here. The server runs in the container's network, outside of the container."
)
COLUMNS = ["Docker"]
PORT = 7000
KINDS = [("round trips/s", "rr"), ("Gbit/s to the container", "up"), ("Gbit/s from it", "down")]
ROWS = [
    row
    for title, kind in KINDS
    for row in (
        (f"{title}: the container's own address", f"{kind}: own"),
        ("- the published port", f"{kind}: published"),
        ("- in % of its own address", f"{kind}: share"),
    )
]
# How long a sample takes.
SECONDS = 0.5

SERVER = f"""
import socket, threading
def serve(client):
    kind = client.recv(1)
    if kind == b"r":
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := client.recv(100):
            client.sendall(data)
    elif kind == b"u":
        total, room = 0, bytearray(1 << 17)
        while count := client.recv_into(room):
            total += count
        client.sendall(b"%d" % total)
    else:
        data = bytes(1 << 17)
        try:
            while True:
                client.sendall(data)
        except OSError:
            pass
    client.close()
listener = socket.create_server(("0.0.0.0", {PORT}))
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

CLIENT = """
import socket, sys, time
kind, host, port, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
server = socket.create_connection((host, port))
server.sendall(kind[:1].encode())
began = time.perf_counter()
until, done = began + limit, 0
if kind == "rr":
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = bytes(100)
    while time.perf_counter() < until:
        server.sendall(data)
        left = 100
        while left:
            left -= len(server.recv(left))
        done += 1
elif kind == "up":
    data = bytes(1 << 17)
    while time.perf_counter() < until:
        server.sendall(data)
    server.shutdown(socket.SHUT_WR)
    done = int(server.recv(64)) * 8 / 1e9
else:
    room = bytearray(1 << 17)
    while time.perf_counter() < until:
        done += server.recv_into(room) * 8 / 1e9
print(done / (time.perf_counter() - began))
"""


class Published:
    """A container with a published port, and a server in its network."""

    def __init__(self, engine):
        self.engine = engine
        self.identity = engine.api.create_published(PORT)
        engine.api.start(self.identity)
        shown = engine.api.inspect(self.identity)
        networks = shown["NetworkSettings"]
        self.own = (networks["Networks"]["bridge"]["IPAddress"], str(PORT))
        self.published = ("127.0.0.1", networks["Ports"][f"{PORT}/tcp"][0]["HostPort"])
        enter = ["nsenter", f"--net=/proc/{shown['State']['Pid']}/ns/net", "--"]
        self.server = subprocess.Popen(
            enter + [sys.executable, "-c", SERVER], stdout=subprocess.PIPE
        )
        self.server.stdout.readline()

    def ask(self, kind, address):
        words = [sys.executable, "-c", CLIENT, kind, *address, str(SECONDS)]
        return float(run(self.engine.in_network(words)))

    def job(self, table, kind):
        def job(counts):
            own, published = self.ask(kind, self.own), self.ask(kind, self.published)
            if counts:
                name = self.engine.name
                table.add(f"{kind}: own", name, own)
                table.add(f"{kind}: published", name, published)
                table.add(f"{kind}: share", name, 100 * published / own)

        return job

    def close(self):
        self.server.kill()
        self.server.wait()
        # The engine has hung up on a connection that was idle for so long.
        self.engine.api.close()
        self.engine.api.remove(self.identity, force=True)


def measure(bench):
    made = []
    try:
        made.extend(Published(engine) for engine in bench.engines if engine is not bench.podman)
        for _, kind in KINDS:
            interleaved(bench.rounds, [one.job(bench.table, kind) for one in made])
    finally:
        for one in made:
            one.close()
