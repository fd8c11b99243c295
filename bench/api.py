"""The Docker API over a unix socket: just enough, with little time of its own.

One connection is kept open; a request is one write, and an answer is parsed by hand. What this
costs is measured and shown in the report (`/_ping`).
"""

import json
import os
import socket
import time

READY = b"ready"
OBEDIENT = "trap 'exit 0' TERM; echo ready; sleep 10000 & wait"
# How often a container's output is looked at.
PATIENCE = 2000
# How long an engine may be silent: the longest is the wait for the end of a container that writes
# a gigabyte.
LIMIT_S = 300


class Refused(Exception):
    """The engine answered with an error."""


class Api:
    def __init__(self, path):
        self.path = path
        self.socket = None
        self.buffer = b""

    def connect(self):
        self.close()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(LIMIT_S)
        self.socket.connect(self.path)

    def close(self):
        if self.socket:
            self.socket.close()
        self.socket, self.buffer = None, b""

    def request(self, method, target, body=None, *, upgrade=False, kind="application/json"):
        """Returns the answer's body; with `upgrade`, everything until the engine hangs up."""
        try:
            return self._request(method, target, body, upgrade, kind)
        except TimeoutError:
            self.close()
            told = f"{method} {target}: no answer of {self.path} for {LIMIT_S} s"
            raise TimeoutError(told) from None

    def _request(self, method, target, body, upgrade, kind):
        if body is None:
            data = b""
        else:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
        if data:
            head += f"Content-Type: {kind}\r\n"
        if upgrade:
            head += "Connection: Upgrade\r\nUpgrade: tcp\r\n"
        status, headers = self._ask(head.encode() + b"\r\n" + data)
        if status == 101:
            answer = self._rest()
            self.close()
            return answer
        if headers.get("transfer-encoding") == "chunked":
            answer = self._chunks()
        elif "content-length" in headers:
            answer = self._take(int(headers["content-length"]))
        elif status in (204, 304):
            answer = b""
        else:
            answer = self._rest()
            self.close()
        if headers.get("connection", "").lower() == "close":
            self.close()
        if status >= 400:
            raise Refused(f"{method} {target}: {status} {answer.decode(errors='replace')}")
        return answer

    def _ask(self, message):
        """An engine may have closed a connection that was not used for long; then it has not seen
        the request, and a new one is made."""
        is_used = self.socket is not None
        if not is_used:
            self.connect()
        try:
            self.socket.sendall(message)
            return self._head()
        except ConnectionError:
            if not is_used or self.buffer:
                raise
        self.connect()
        self.socket.sendall(message)
        return self._head()

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the engine hung up")
        self.buffer += data

    def _until(self, mark):
        while mark not in self.buffer:
            self._more()
        found, self.buffer = self.buffer.split(mark, 1)
        return found

    def _take(self, length):
        while len(self.buffer) < length:
            self._more()
        found, self.buffer = self.buffer[:length], self.buffer[length:]
        return found

    def _rest(self):
        parts = [self.buffer]
        while data := self.socket.recv(65536):
            parts.append(data)
        self.buffer = b""
        return b"".join(parts)

    def _chunks(self):
        parts = []
        while length := int(self._until(b"\r\n"), 16):
            parts.append(self._take(length))
            self._take(2)
        self._until(b"\r\n")
        return b"".join(parts)

    def _head(self):
        lines = self._until(b"\r\n\r\n").decode().split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(lines[0].split()[1]), headers

    def another(self):
        """A connection of its own, for another thread."""
        return Api(self.path)

    # What is measured.

    def ping(self):
        self.request("GET", "/_ping")

    def create(self, network, command, image="busybox:latest"):
        body = {"Image": image, "Cmd": command, "HostConfig": {"NetworkMode": network}}
        return json.loads(self.request("POST", "/containers/create", body))["Id"]

    def create_published(self, ports, network, first=None):
        """A container that publishes these ports at all addresses: at any numbers, or those from
        `first` on."""
        names = [f"{port}/tcp" for port in ports]
        numbers = [""] * len(names) if first is None else range(first, first + len(names))
        pairs = zip(names, numbers)
        bindings = {name: [{"HostIp": "", "HostPort": str(number)}] for name, number in pairs}
        body = {
            "Image": "busybox:latest",
            "Cmd": ["sleep", "10000"],
            "ExposedPorts": {name: {} for name in names},
            "HostConfig": {"NetworkMode": network, "PortBindings": bindings},
        }
        return json.loads(self.request("POST", "/containers/create", body))["Id"]

    def create_named(self, network, aliases):
        """A container that is called all this on the network."""
        endpoints = {network: {"Aliases": aliases}}
        body = {
            "Image": "busybox:latest",
            "Cmd": ["sleep", "10000"],
            "HostConfig": {"NetworkMode": network},
            "NetworkingConfig": {"EndpointsConfig": endpoints},
        }
        return json.loads(self.request("POST", "/containers/create", body))["Id"]

    def create_network(self, body):
        return json.loads(self.request("POST", "/networks/create", body))["Id"]

    def remove_network(self, name):
        self.request("DELETE", f"/networks/{name}")

    def connect_to(self, network, identity):
        self.request("POST", f"/networks/{network}/connect", {"Container": identity})

    def disconnect_from(self, network, identity):
        self.request("POST", f"/networks/{network}/disconnect", {"Container": identity})

    def inspect(self, identity):
        return json.loads(self.request("GET", f"/containers/{identity}/json"))

    def start(self, identity):
        self.request("POST", f"/containers/{identity}/start")

    def wait(self, identity):
        code = json.loads(self.request("POST", f"/containers/{identity}/wait"))["StatusCode"]
        if code != 0:
            raise Refused(f"the container ended with {code}")

    def create_obedient(self, network):
        """A container that runs until SIGTERM comes, and then ends at once."""
        return self.create(network, ["sh", "-c", OBEDIENT])

    def await_obedience(self, identity):
        """Waits until such a container's shell listens to the signal."""
        for _ in range(PATIENCE):
            if READY in self.request("GET", f"/containers/{identity}/logs?stdout=1"):
                return
            time.sleep(0.005)
        raise Refused(f"{identity} does not begin")

    def stop(self, identity):
        self.request("POST", f"/containers/{identity}/stop")

    def kill(self, identity):
        self.request("POST", f"/containers/{identity}/kill")
        self.request("POST", f"/containers/{identity}/wait")

    def remove(self, identity, force=False):
        self.request("DELETE", f"/containers/{identity}?force={int(force)}")

    def cycle(self, network):
        """Create, start, wait, remove: the seconds of each."""
        times = [time.perf_counter()]
        identity = self.create(network, ["true"])
        times.append(time.perf_counter())
        for step in (self.start, self.wait, self.remove):
            step(identity)
            times.append(time.perf_counter())
        return [after - before for before, after in zip(times, times[1:])]

    def exec(self, identity, command):
        """Runs a command in a running container until its output ends."""
        body = {"Cmd": command, "AttachStdout": True, "AttachStderr": True}
        answer = json.loads(self.request("POST", f"/containers/{identity}/exec", body))
        start = {"Detach": False, "Tty": False}
        return self.request("POST", f"/exec/{answer['Id']}/start", start, upgrade=True)

    def load(self, archive):
        self.request("POST", "/images/load?quiet=1", archive, kind="application/x-tar")

    def load_file(self, path):
        """The same from a file, which is not read into memory."""
        self.connect()
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = "POST /images/load?quiet=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            head += f"Content-Type: application/x-tar\r\nContent-Length: {size}\r\n\r\n"
            self.socket.sendall(head.encode())
            self.socket.sendfile(file)
        status, _ = self._head()
        self._of_a_stream(status, self._rest())

    def pull(self, name):
        """Pulls `name:latest`."""
        answer = self.request("POST", f"/images/create?fromImage={name}&tag=latest")
        self._of_a_stream(200, answer)

    def _of_a_stream(self, status, answer):
        """What fails after the answer has begun is told at its end."""
        if status >= 400 or b'"error' in answer:
            raise Refused(f"{status} {answer[-500:].decode(errors='replace')}")

    def remove_image(self, name):
        self.request("DELETE", f"/images/{name}?force=1")

    def read_logs(self, identity):
        """Reads all of a container's output and forgets it; the number of bytes."""
        self.connect()
        target = f"/containers/{identity}/logs?stdout=1"
        head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        self.socket.sendall(head.encode())
        status, _ = self._head()
        if status != 200:
            raise Refused(f"GET {target}: {status}")
        total, room = len(self.buffer), bytearray(1 << 20)
        while count := self.socket.recv_into(room):
            total += count
        self.close()
        return total

    def all_containers(self):
        listed = json.loads(self.request("GET", "/containers/json?all=1"))
        return [container["Id"] for container in listed]
