"""The chart for the README: for each row a bar for each engine, the longest being the row's
slowest. Plain SVG, the same bytes for the same figures."""

from xml.sax.saxutils import escape

from table import OURS, number

COLOURS = {OURS: "#1f7a5a", "Docker": "#8a94a6", "Podman": "#b9a3c9"}
WIDTH = 760
LABEL = 250
BAR = 370
HEIGHT = 13
GAP = 3
ROW_GAP = 15
TOP = 52


def bar(y, who, value, longest, unit):
    length = max(2, round(BAR * value / longest))
    return [
        f'<rect x="{LABEL}" y="{y}" width="{length}" height="{HEIGHT}" rx="2" '
        f'fill="{COLOURS[who]}"/>',
        f'<text x="{LABEL + length + 6}" y="{y + 11}" class="figure">'
        f"{number(value)} {unit}</text>",
    ]


def draw(table, rows, peers, caption):
    """`rows`: (title, what, unit)."""
    engines = [OURS, *peers]
    body, y = [], TOP
    for title, what, unit in rows:
        values = [(who, table.median(what, who)) for who in engines]
        values = [(who, value) for who, value in values if value]
        if len(values) < 2:
            continue
        height = len(values) * (HEIGHT + GAP) - GAP
        middle = y + height / 2 + 4
        body.append(f'<text x="{LABEL - 10}" y="{middle:.0f}" class="row">{escape(title)}</text>')
        longest = max(value for _, value in values)
        for who, value in values:
            body += bar(y, who, value, longest, unit)
            y += HEIGHT + GAP
        y += ROW_GAP
    legend = []
    for index, who in enumerate(engines):
        x = LABEL + index * 100
        legend.append(f'<rect x="{x}" y="22" width="12" height="12" rx="2" fill="{COLOURS[who]}"/>')
        legend.append(f'<text x="{x + 18}" y="32" class="figure">{escape(who)}</text>')
    height = y + 24
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(caption)}">'
    )
    style = (
        "<style>text{font:12px system-ui,sans-serif;fill:#24292f}.row{text-anchor:end}"
        ".note{font-size:11px;fill:#57606a}</style>"
    )
    ground = f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>'
    note = f'<text x="14" y="{height - 12}" class="note">{escape(caption)}</text>'
    return "\n".join([head, style, ground, *legend, *body, note, "</svg>"]) + "\n"
