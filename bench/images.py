"""The images of the benchmark, made here: the same for all engines."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from random import Random

# What the registry says that it serves.
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def busybox_layer():
    """This machine's static busybox, as Debian's package has it, with what a root needs."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(os.path.realpath("/bin/busybox"), "bin/busybox", filter=_plain)
        for name in ("sh", "true", "sleep", "echo", "yes", "head"):
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        _file(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        _file(tar, "etc/group", b"root:x:0:\n")
    return layer.getvalue()


def unpack_busybox(directory):
    """The same as a directory, for a runtime's bundle."""
    with tarfile.open(fileobj=io.BytesIO(busybox_layer())) as tar:
        tar.extractall(directory)


def busybox_archive():
    """The same as an image, for `docker load`."""
    layer = busybox_layer()
    digest = hashlib.sha256(layer).hexdigest()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        _file(tar, "layer.tar", layer)
        _file(tar, "config.json", _config([digest]))
        _file(tar, "manifest.json", _manifest("busybox", ["layer.tar"]))
    return archive.getvalue()


class Large:
    """An image of 400 MB in 5 layers: as an archive for `docker load`, and as what a registry
    serves. Half of each file's bytes cannot be compressed, the other half nearly vanishes."""

    LAYERS = 5
    # A layer: so many files of this many bytes.
    FILES = ((2000, 20_000), (20, 2_000_000))

    def __init__(self, directory):
        """Takes some 20 s, most of it compression."""
        self.archive = os.path.join(directory, "large.tar")
        self.blobs = os.path.join(directory, "blobs")
        os.mkdir(self.blobs)
        layers, digests, names = [], [], []
        with tarfile.open(self.archive, mode="w") as archive:
            for number in range(self.LAYERS):
                layer = self._layer(number)
                digests.append(hashlib.sha256(layer).hexdigest())
                names.append(f"layer{number}.tar")
                _file(archive, names[-1], layer)
                compressed = gzip.compress(layer, 1, mtime=0)
                layers.append(self._blob(compressed, "layer.v1.tar+gzip"))
            config = _config(digests)
            _file(archive, "config.json", config)
            _file(archive, "manifest.json", _manifest("large", names))
        self.compressed = sum(layer["size"] for layer in layers)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._blob(config, "config.v1+json"),
            "layers": layers,
        }
        self.manifest = os.path.join(directory, "manifest.json")
        with open(self.manifest, "w", encoding="ascii") as file:
            json.dump(manifest, file)

    def _layer(self, number):
        random, layer = Random(number), io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            for count, size in self.FILES:
                for index in range(count):
                    data = random.randbytes(size // 2) + b"berth " * (size // 12)
                    _file(tar, f"layer{number}/{size}/{index}", data)
        return layer.getvalue()

    def _blob(self, data, kind):
        digest = hashlib.sha256(data).hexdigest()
        with open(os.path.join(self.blobs, digest), "wb") as file:
            file.write(data)
        kind = f"application/vnd.oci.image.{kind}"
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


def _config(digests):
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine),
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    return json.dumps(config).encode()


def _manifest(name, layers):
    """Of an archive."""
    manifest = {"Config": "config.json", "RepoTags": [f"{name}:latest"], "Layers": layers}
    return json.dumps([manifest]).encode()


def _plain(entry):
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _file(tar, name, data):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
