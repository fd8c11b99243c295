"""A container that writes lines to its standard output, with the default log driver."""

from table import seconds

TITLE = "Logs"
LINE = "x" * 99
SIZE = 1_000_000_000
NOTE = (
    f"Seconds, of one run: a container writes {SIZE // 10**6} MB in lines of {len(LINE) + 1} bytes to "
    "its standard output, by the default log driver; then all of it is read by the API. (With "
    "`--quick` a twentieth of it.)"
)
COLUMNS = ["Docker", "Podman"]
ROWS = [("written, from the start to the end", "logs: write"), ("read back", "logs: read")]


def measure(bench):
    size = SIZE // 20 if bench.quick else SIZE
    for engine in bench.engines:
        script = f"yes {LINE} | head -c {size}"
        identity = engine.api.create("none", ["sh", "-c", script])

        def write():
            engine.api.start(identity)
            engine.api.wait(identity)

        bench.table.add("logs: write", engine.name, seconds(write))
        read = []
        took = seconds(lambda: read.append(engine.api.read_logs(identity)))
        if read[0] < size:
            raise engine.failed(f"has {read[0]} bytes of the log in place of {size}")
        bench.table.add("logs: read", engine.name, took)
        engine.api.remove(identity)
