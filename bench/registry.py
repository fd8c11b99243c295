"""A registry with one image, any name of which is served; it is only read.

    registry.py DIRECTORY      prints its port; DIRECTORY has what `images.Large` made

`/served` tells how many bytes of blobs it has sent, so that a pull which took nothing from it is
noticed.
"""

import hashlib
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from images import MANIFEST

DIRECTORY = sys.argv[1]
SERVED = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, path, kind, **headers):
        try:
            file = open(path, "rb")
        except FileNotFoundError:
            return self.text(404, b"{}")
        with file:
            size = os.fstat(file.fileno()).st_size
            self.head(200, kind, size, headers)
            if self.command == "GET":
                self.wfile.flush()
                self.connection.sendfile(file)
                SERVED.append(size)

    def text(self, status, text):
        self.head(status, "application/json", len(text), {})
        if self.command == "GET":
            self.wfile.write(text)

    def head(self, status, kind, size, headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_GET(self):
        parts = self.path.split("/")
        if self.path == "/v2/":
            self.text(200, b"{}")
        elif self.path == "/served":
            self.text(200, str(sum(SERVED)).encode())
        elif "blobs" in parts:
            digest = parts[-1].removeprefix("sha256:")
            self.answer(os.path.join(DIRECTORY, "blobs", digest), "application/octet-stream")
        else:
            path = os.path.join(DIRECTORY, "manifest.json")
            with open(path, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            self.answer(path, MANIFEST, Docker_Content_Digest=f"sha256:{digest}")

    do_HEAD = do_GET


SERVER = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(SERVER.server_port, flush=True)
SERVER.serve_forever()
