"""What is measured: one file a topic.

A topic has `TITLE`, `NOTE` (a sentence for the report, or nothing), `COLUMNS` (the peers, in the
table's order), `ROWS` ((title, what) of each row) and `measure(bench)`, which fills
`bench.table`. Topics run in this order, with all engines up at the beginning of each.
"""

from topics import daemon, life, line, logs, many, names, networks, paths, runtime, transfer

ALL = [life, line, many, paths, networks, names, logs, transfer, daemon, runtime]
