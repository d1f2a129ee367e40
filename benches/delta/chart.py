"""The bar chart: per pair distedge, the best transfer and the best patch of the packed file, on a logarithmic scale."""

import math
from xml.sax.saxutils import escape

import peers
import report

LEFT, WIDTH, RIGHT = 150, 620, 70
TOP, BAR, GAP, SPACE = 112, 11, 2, 13
LOW, HIGH = 0.01, 100.0
BARS = [
    ("distedge", "#0b6e4f", lambda row: report.share(row)),
    ("best of rsync, zsync, chunks", "#9aa5b1", lambda row: report.best(row, peers.TRANSFERS)),
    ("best of xdelta3, bsdiff, zstd --patch-from", "#d5b26e", lambda row: report.best(row, peers.PATCHES)),
]


def svg(rows):
    body, y = [], TOP
    blocks = [[row for row in rows if row["pair"].listed], [row for row in rows if not row["pair"].listed]]
    for title, block in zip(("acceptance pairs", "other pairs"), blocks):
        if not block:
            continue
        body.append(_text(LEFT - 10, y + 4, title, 11, "#5c6770", "end", "italic"))
        y += 14
        for row in block:
            y = _pair(body, row, y)
        y += 10
    height = y + 34
    lines = [_axis(decade, y) for decade in _decades()]
    head = [
        _text(20, 30, "What a release costs to move", 19, "#1b242c", weight="600"),
        _text(20, 51, "bytes sent, in % of the new package; the receiver has the old one; logarithmic", 12, "#5c6770"),
        *_legend(),
    ]
    mean, count = report.mean_of(rows)
    if count:
        words = f"geometric mean over {count} acceptance pairs: {mean:.2f} %"
        head.append(_text(LEFT + WIDTH + RIGHT - 8, 30, words, 13, "#0b6e4f", "end", weight="600"))
    wide = LEFT + WIDTH + RIGHT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {height}" width="{wide}" height="{height}" '
            'font-family="Helvetica, Arial, sans-serif">',
            f'<rect width="{wide}" height="{height}" fill="#ffffff"/>',
            *lines,
            *head,
            *body,
            "</svg>\n",
        ]
    )


def _pair(body, row, y):
    top, pair = y, row["pair"]
    for what, ink, value_of in BARS:
        value = value_of(row)
        if value is None:
            continue
        end = _x(value)
        body.append(f'<rect x="{LEFT}" y="{y}" width="{max(end - LEFT, 1):.1f}" height="{BAR}" rx="1.5" fill="{ink}"/>')
        label = f"{value:.2f} %" if value < 10 else f"{value:.1f} %"
        style = {"ink": ink, "weight": "600"} if what == "distedge" else {"ink": "#7b8794"}
        body.append(_text(LEFT + WIDTH + RIGHT - 8, y + BAR - 2, label, 10, anchor="end", **style))
        y += BAR + GAP
    middle = (top + y - GAP) / 2
    body.append(_text(LEFT - 10, middle - 1, pair.name, 12, "#1b242c", "end", weight="600"))
    body.append(_text(LEFT - 10, middle + 12, f"{row['full'] / 1e6:.1f} MB", 10, "#7b8794", "end"))
    for value, ink in ((pair.must, "#b3261e"), (pair.goal, "#1b242c")):
        if value is not None:
            at = _x(value)
            body.append(
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top - 3}" y2="{top + BAR + 2}" '
                f'stroke="{ink}" stroke-width="2"/>'
            )
    return max(y, top + 26) + SPACE


def _legend():
    out, x = [], 20
    for what, ink, _ in BARS:
        out.append(f'<rect x="{x}" y="66" width="12" height="12" rx="1.5" fill="{ink}"/>')
        out.append(_text(x + 18, 76, what, 12, "#1b242c"))
        x += 36 + 6.4 * len(what)
    for what, ink in (("must", "#b3261e"), ("goal", "#1b242c")):
        out.append(f'<line x1="{x}" x2="{x}" y1="65" y2="79" stroke="{ink}" stroke-width="2"/>')
        out.append(_text(x + 8, 76, what, 12, "#1b242c"))
        x += 54
    return out


def _axis(decade, bottom):
    x, label = _x(decade), f"{decade:g} %"
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}" stroke="#e4e7eb"/>'
        + _text(x, TOP - 14, label, 10, "#7b8794", "middle")
        + _text(x, bottom + 14, label, 10, "#7b8794", "middle")
    )


def _decades():
    return [10.0**power for power in range(round(math.log10(LOW)), round(math.log10(HIGH)) + 1)]


def _x(value):
    place = math.log(max(value, LOW) / LOW) / math.log(HIGH / LOW)
    return LEFT + WIDTH * min(place, 1.01)


def _text(x, y, words, size, ink, anchor="start", style="normal", weight="400"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{ink}" text-anchor="{anchor}" '
        f'font-style="{style}" font-weight="{weight}">{escape(words)}</text>'
    )
