"""Traffic between network namespaces: a server in one, and clients that measure it from others."""

import os
import select
import subprocess
import sys

from engines import DEADLINE_S, Failed, run

PORT = 7000
# Connections to this one are closed by the server at once.
DOOR = 7001
# How long a sample takes.
SECONDS = 0.4

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
def close():
    while True:
        door.accept()[0].close()
def listen(port):
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
listener, door = listen({PORT}), listen({DOOR})
threading.Thread(target=close, daemon=True).start()
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

CLIENT = """
import socket, sys, time
kind, host, port, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
done = 0
if kind == "connections":
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    began = time.perf_counter()
    until = began + limit
    while time.perf_counter() < until:
        with socket.socket(family, socket.SOCK_STREAM) as server:
            server.connect((host, port))
            server.recv(1)
        done += 1
    print(done / (time.perf_counter() - began))
    sys.exit()
server = socket.create_connection((host, port))
server.sendall(kind[:1].encode())
began = time.perf_counter()
until = began + limit
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


def of_process(pid):
    """The words that run a command in a process's network."""
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]


def of_namespace(name):
    return ["nsenter", f"--net=/run/netns/{name}", "--"]


class Server:
    """Answers in the network that `enter` leads to."""

    def __init__(self, enter):
        words = enter + [sys.executable, "-c", SERVER]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE)
        told, _, _ = select.select([self.process.stdout], [], [], DEADLINE_S)
        if not told or self.process.stdout.readline() != b"ready\n":
            self.close()
            raise Failed("the server of the benchmark does not begin")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def ask(enter, kind, host, port):
    """Of one connection, `rr`: round trips of 100 bytes a second; `up` and `down`: Gbit/s to and
    from the server. `connections`: one after another, a second."""
    return float(run(enter + [sys.executable, "-c", CLIENT, kind, host, str(port), str(SECONDS)]))


class Namespaces:
    """Network namespaces of the benchmark's own, and pairs of interfaces between them."""

    def __init__(self):
        self.made = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], check=False, timeout=DEADLINE_S)

    def make(self, what):
        name = what if what.startswith("bench-") else f"bench-{os.getpid()}-{what}"
        run(["ip", "netns", "add", name])
        self.made.append(name)
        run(["ip", "-n", name, "link", "set", "lo", "up"])
        return name

    def pair(self, one, other):
        """An interface in each of two namespaces: (namespace, name)."""
        (space, name), (peer, far) = one, other
        run(["ip", "-n", space, "link", "add", name, "type", "veth", "peer", far, "netns", peer])
        run(["ip", "-n", peer, "link", "set", far, "up"])
        run(["ip", "-n", space, "link", "set", name, "up"])

    def address(self, name, interface, *addresses):
        for address in addresses:
            # Without the second in which nobody else is known to have it.
            nodad = ["nodad"] if ":" in address else []
            run(["ip", "-n", name, "addr", "add", address, "dev", interface, *nodad])

    def route(self, name, *gateways):
        for gateway in gateways:
            run(["ip", "-n", name, "route", "add", "default", "via", gateway])

    def forward(self, name):
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            path = f"/proc/sys/{key.replace('.', '/')}"
            run([*of_namespace(name), "sh", "-c", f"echo 1 > {path}"])
