"""The samples of each measurement, and how they are told."""

import statistics
import time

# Between two measurements: what an engine does after its answer (all take away interfaces and
# namespaces in the background) shall not be counted as another's time.
PAUSE_S = 0.15


class Table:
    """Samples by what was measured and by whom."""

    def __init__(self):
        self.samples = {}

    def add(self, what, who, value):
        self.samples.setdefault(what, {}).setdefault(who, []).append(value)

    def median(self, what, who):
        values = self.samples.get(what, {}).get(who)
        return statistics.median(values) if values else None

    def cell(self, what, who):
        values = self.samples.get(what, {}).get(who)
        if not values:
            return ""
        shown = [number(value) for value in (statistics.median(values), min(values), max(values))]
        return shown[0] if len(values) == 1 else f"{shown[0]} ({shown[1]}-{shown[2]})"

    def ratio(self, what, who, peer):
        ours, theirs = self.median(what, who), self.median(what, peer)
        return f"{theirs / ours:.1f}" if ours and theirs else ""

    def lines(self, rows, columns):
        """A markdown table of `rows`, (title, what); an engine that measured nothing has no
        column. Behind each peer's figures comes how many times ours they are."""
        measured = {who for _, what in rows for who in self.samples.get(what, {})}
        peers = [who for who in columns if who in measured and who != OURS]
        head = ["", OURS] + [word for peer in peers for word in (peer, "ratio")]
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for title, what in rows:
            if what in self.samples:
                cells = [title, self.cell(what, OURS)]
                for peer in peers:
                    cells += [self.cell(what, peer), self.ratio(what, OURS, peer)]
                lines.append("| " + " | ".join(cells) + " |")
        return lines


OURS = "Berth"


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(rounds, jobs):
    """Runs all jobs once a round, in alternating order, so that what else the machine does meets
    all of them alike. The first round is told to be one to forget."""
    for index in range(rounds + 1):
        for job in jobs if index % 2 else reversed(jobs):
            job(index > 0)
            time.sleep(PAUSE_S)


def timed(table, what, who, work):
    """A job that takes the milliseconds of `work`."""

    def job(counts):
        took = seconds(work)
        if counts:
            table.add(what, who, 1000 * took)

    return job
