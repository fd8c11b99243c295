"""An image of 400 MB in 5 layers: pulled from a registry on the loopback interface, and loaded."""

import os
import subprocess
import sys

from engines import run
from images import Large
from table import interleaved, seconds

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPT = os.path.join(os.path.dirname(HERE), "registry.py")

TITLE = "Images"
NOTE = (
    "Seconds, for an image of 400 MB in 5 layers of 2,020 files, about half of that compressed. It "
    "is removed before each time."
)
COLUMNS = ["Docker", "Podman"]
ROWS = [("pull, from a registry on 127.0.0.1", "pull"), ("load, of an archive", "load")]


class Registry:
    """In the network namespace of an engine, where it is on the loopback interface."""

    def __init__(self, engine, large):
        self.engine, self.large = engine, large
        words = engine.in_network([sys.executable, "-B", SCRIPT, os.path.dirname(large.blobs)])
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE)
        self.host = "127.0.0.1:" + self.process.stdout.readline().decode().strip()
        if self.host.endswith(":"):
            raise engine.failed("has no registry")

    def served(self):
        fetch = f"import urllib.request as u; print(u.urlopen('http://{self.host}/served').read().decode())"
        return int(run(self.engine.in_network([sys.executable, "-c", fetch])))

    def pull(self, table):
        def job(counts):
            before, name = self.served(), f"{self.host}/large"
            os.sync()
            took = seconds(lambda: self.engine.api.pull(name))
            if self.served() - before < self.large.compressed:
                raise self.engine.failed("pulled an image that it had")
            self.engine.api.remove_image(f"{name}:latest")
            if counts:
                table.add("pull", self.engine.name, took)

        return job

    def load(self, table):
        def job(counts):
            os.sync()
            took = seconds(lambda: self.engine.api.load_file(self.large.archive))
            self.engine.api.remove_image("large:latest")
            if counts:
                table.add("load", self.engine.name, took)

        return job

    def close(self):
        self.process.kill()
        self.process.wait()


def measure(bench):
    rounds = 1 if bench.quick else max(3, bench.rounds // 5)
    large = Large(bench.work)
    registries = []
    try:
        registries.extend(Registry(engine, large) for engine in bench.engines)
        interleaved(rounds, [registry.pull(bench.table) for registry in registries])
        interleaved(rounds, [registry.load(bench.table) for registry in registries])
    finally:
        for registry in registries:
            registry.close()
