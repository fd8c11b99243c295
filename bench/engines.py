"""The engines: each with roots of its own, in a network namespace of its own."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time

from api import Api, Refused
from cgroups import second_hierarchies

HERE = os.path.dirname(os.path.abspath(__file__))
# How long a daemon may take to answer, and to end.
DEADLINE_S = 60
# How long its helpers may take to end after it.
PATIENCE_S = 3


class Failed(Exception):
    """An engine did not do what is to be measured."""


class NotStarted(Failed):
    """An engine that cannot be measured here."""


def run(words):
    """Runs a command that is to succeed, and in time; its standard output."""
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(words)}: did not end within {DEADLINE_S} s") from None
    except subprocess.CalledProcessError as error:
        raise Failed(f"{' '.join(words)}: ended with {error.returncode}") from None
    return done.stdout.strip()


def execute(words):
    """The same without its output, for what is timed: it is waited for without looking again and
    again, as `subprocess` does where there is a limit."""
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    handle = os.pidfd_open(process.pid)
    try:
        ended, _, _ = select.select([handle], [], [], DEADLINE_S)
    finally:
        os.close(handle)
    if not ended:
        process.kill()
    if process.wait() != 0:
        told = f"ended with {process.returncode}" if ended else f"did not end within {DEADLINE_S} s"
        raise Failed(f"{' '.join(words)}: {told}")


class Engine:
    name = ""

    def __init__(self, work):
        self.work = os.path.join(work, self.name.lower())
        os.makedirs(self.work)
        # Short: the path of a socket has at most 107 bytes.
        self.socket = os.path.join(self.work, "sock")
        self.api = Api(self.socket)
        self.netns = f"bench-{os.getpid()}-{self.name.lower()}"
        run(["ip", "netns", "add", self.netns])
        run(["ip", "-n", self.netns, "link", "set", "lo", "up"])
        self.process = None
        self.client = []
        self.log = open(os.path.join(self.work, "log"), "ab")

    def command(self):
        raise NotImplementedError

    def in_network(self, words):
        """A command in the engine's network namespace."""
        return ["nsenter", f"--net=/run/netns/{self.netns}", "--", *words]

    def failed(self, what):
        return Failed(f"{self.name} {what}:\n{self.tail()}")

    def start(self):
        """Starts the daemon; returns the seconds until its first answer."""
        self.api.close()
        began = time.perf_counter()
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        while True:
            try:
                self.api.ping()
                return time.perf_counter() - began
            except OSError:
                self.api.close()
                if self.process.poll() is not None or time.perf_counter() - began > DEADLINE_S:
                    raise NotStarted(f"{self.name} does not start:\n{self.tail()}") from None
                time.sleep(0.0005)

    def stop(self):
        """Ends the daemon. One that does not end in time is killed, and that is an error."""
        self.api.close()
        process, self.process = self.process, None
        if not process or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise self.failed(f"does not end within {DEADLINE_S} s of SIGTERM") from None

    def close(self):
        """Nothing of it stays, whatever state it is in."""
        try:
            # None is left but after a failure.
            if self.process and self.process.poll() is None:
                for identity in self.api.all_containers():
                    self.api.remove(identity, force=True)
            self.stop()
        except (Failed, Refused, OSError) as error:
            print(f"bench: {error}", file=sys.stderr)
        # Its helpers end after it, and take their cgroups along.
        patience = time.monotonic() + PATIENCE_S
        while self.processes() and time.monotonic() < patience:
            time.sleep(0.02)
        # What a daemon left: only what is in the namespace that was made here.
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", self.netns], check=False, timeout=DEADLINE_S)
        self.log.close()

    def tail(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-15:])

    def processes(self):
        """The engine's own processes: those in its network namespace, which its containers (with
        networks of their own) are not in."""
        home = os.stat(f"/run/netns/{self.netns}").st_ino
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    if os.stat(f"/proc/{entry}/ns/net").st_ino == home:
                        found.append(int(entry))
                except OSError:
                    pass
        return found

    def memory_mib(self):
        """The proportional set size of all the engine's processes."""
        total = 0
        for pid in self.processes():
            try:
                with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
                    total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            except OSError:
                pass
        return total / 1024


class Berth(Engine):
    name = "Berth"

    def __init__(self, work, binary):
        self.binary = binary
        super().__init__(work)
        self.client = [binary, "-H", f"unix://{self.socket}"]

    def command(self):
        roots = [f"--data-root={self.work}/data", f"--exec-root={self.work}/exec"]
        pid = f"--pidfile={self.work}/pid"
        words = [self.binary, "daemon", *roots, pid, "-H", f"unix://{self.socket}"]
        return self.in_network(words)

    def version(self):
        return run([self.binary, "--version"])


class Peer(Engine):
    """An engine from the peers' tree, which is the root of a mount namespace of its own."""

    def __init__(self, work):
        super().__init__(work)
        self.state = os.path.join(self.work, "state")
        os.makedirs(self.state)
        self.holder = subprocess.Popen(
            [os.path.join(HERE, "peer"), "hold", self.state],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        told, _, _ = select.select([self.holder.stdout], [], [], DEADLINE_S)
        if not told or self.holder.stdout.readline() != b"held\n":
            self.close()
            raise NotStarted("the peers' tree cannot be used as a root")
        self.socket = os.path.join(self.state, "run", f"{self.name.lower()}.sock")
        self.api = Api(self.socket)

    def inside(self, words):
        mount = f"--mount=/proc/{self.holder.pid}/ns/mnt"
        path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        return self.in_network(["nsenter", mount, "--", "env", path, *words])

    def version(self):
        return run(self.inside([self.name.lower(), "--version"]))

    def close(self):
        super().close()
        self.holder.stdin.close()
        try:
            self.holder.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.holder.kill()
            self.holder.wait()


class Docker(Peer):
    name = "Docker"

    def __init__(self, work):
        super().__init__(work)
        self.words = run([os.path.join(HERE, "peer"), "client"]).splitlines()
        self.client = self.client_of(self)

    def client_of(self, engine):
        """The command line, for any engine that speaks its API."""
        return self.words + ["-H", f"unix://{engine.socket}"]

    def command(self):
        return self.inside(["/usr/sbin/dockerd", "--host=unix:///run/docker.sock"])


class Podman(Peer):
    """Without a daemon; its API is served by a process that is started here."""

    name = "Podman"
    OPTIONS = ["--cgroup-manager=cgroupfs", "--events-backend=file", "--log-level=error"]

    def __init__(self, work):
        super().__init__(work)
        # The registry of the topic `transfer` has no TLS.
        registries = os.path.join(self.state, "tmp", "registries.conf")
        with open(registries, "w", encoding="ascii") as file:
            file.write('[[registry]]\nprefix = "127.0.0.1"\nlocation = "127.0.0.1"\ninsecure = true\n')
        config = "CONTAINERS_REGISTRIES_CONF=/tmp/registries.conf"
        self.client = self.inside([config, "podman", *self.OPTIONS])
        for point in second_hierarchies():
            run(self.inside(["umount", point]))

    @staticmethod
    def is_there():
        return subprocess.run([os.path.join(HERE, "peer"), "has", "podman"], check=False).returncode == 0

    def command(self):
        service = ["system", "service", "--time=0", "unix:///run/podman.sock"]
        return self.client + service


def remove(work):
    """Deletes the roots, where nothing is mounted any more."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        points = [line.split()[1] for line in mounts]
    if not any(point.startswith(work) for point in points):
        shutil.rmtree(work, ignore_errors=True)
