"""The tables, the checks and the bars in text."""

import math

import peers

MIB = 1 << 20
# Musts and goals that hold for every pair, whatever it is.
NEVER_ABOVE = 101.0
MEAN = (7.0, 5.0)
PLAN_CPU = 5.0
PLAN_ANON = 1 << 30
APPLY_SPEED = (30.0, 100.0)
APPLY_ANON = 512 * MIB
# What a phase of planning works on, of the account that the program gives; the other phases work on the new file.
WORKS_ON = {
    "match": ("copied_bytes", "code_bytes", "new_bytes"),
    "code": ("code_bytes",),
    "windows": ("new_bytes",),
    "verify": ("copied_bytes", "code_bytes", "new_bytes"),
}


def everything(rows, skipped, complete):
    parts = []
    for title, block in _blocks(rows):
        parts += [f"{title}: bytes moved, % of the new file", _bytes(block)]
    parts.append(_mean(rows, complete))
    if any(_ours(row) for row in rows):
        for title, block in _blocks(rows):
            parts += [f"{title}: cost", _costs(block)]
        parts.append(_slow_as_published(rows))
        parts += ["Processor seconds by phase of planning", _phases(rows)]
        made = "What the patches are made of: streams and bytes of the opened file, bytes of the patch"
        parts += [made, _accounts(rows)]
        parts += ["Bars, logarithmic from 0.1 % to 100 %", _bars(rows)]
    if skipped:
        parts += ["Skipped", "\n".join(f"  {pair.name}: {why}" for pair, why in skipped)]
    return "\n\n".join(part for part in parts if part)


def missed(rows):
    """One line per must that is missed."""
    lines = []
    for row in rows:
        name, ours = row["pair"].name, _ours(row)
        if "distedge" in row and not ours:
            lines.append(f"{name}: {row['distedge']['error']}")
        lines += [f"{name}: {what}" for verdict, what in _size_checks(row) + _cost_checks(row) if verdict == "must"]
    mean, count = mean_of(rows)
    if count and mean > MEAN[0]:
        lines.append(f"geometric mean {mean:.2f} %, must {MEAN[0]:g} %")
    return lines


def share(row):
    ours = _ours(row)
    return ours and 100 * ours["bytes"] / row["full"]


def best(row, names):
    """The best of these peers in %, where any of them ran."""
    ran = [row["peers"][name]["bytes"] for name in names if "bytes" in row["peers"].get(name, {})]
    return 100 * min(ran) / row["full"] if ran else None


def mean_of(rows):
    """The geometric mean over the listed pairs that ran, in %, and how many they are."""
    shares = [share(row) for row in rows if row["pair"].listed and _ours(row)]
    return (math.exp(sum(map(math.log, shares)) / len(shares)), len(shares)) if shares else (None, 0)


def _ours(row):
    ours = row.get("distedge")
    return ours if ours and "bytes" in ours else None


def _blocks(rows):
    listed = [row for row in rows if row["pair"].listed]
    others = [row for row in rows if not row["pair"].listed]
    blocks = [("Pairs of the acceptance figures", listed), ("Other pairs", others)]
    return [(title, block) for title, block in blocks if block]


def _size_checks(row):
    if not _ours(row):
        return []
    pair, percent = row["pair"], share(row)
    checks = []
    if percent > NEVER_ABOVE:
        checks.append(("must", f"{percent:.1f} %, never above {NEVER_ABOVE:g} %"))
    if pair.must is not None and percent > pair.must:
        checks.append(("must", f"{percent:.2f} %, must {pair.must:g} %"))
    elif pair.goal is not None and percent > pair.goal:
        checks.append(("goal", f"{percent:.2f} %, goal {pair.goal:g} %"))
    rsync = row["peers"].get("rsync", {}).get("bytes")
    if pair.name.startswith("plain-") and rsync is not None and _ours(row)["bytes"] > rsync:
        checks.append(("must", f"{_ours(row)['bytes']} bytes, rsync {rsync}"))
    return checks


def _cost_checks(row):
    ours = _ours(row)
    if not ours:
        return []
    plan, apply = ours["plan"], ours["apply"]
    checks = []
    per_mb = plan["cpu"] / (row["full"] / 1e6)
    # Below a megabyte the start of the program is what is measured.
    if row["full"] > 1e6 and per_mb > PLAN_CPU:
        checks.append(("must", f"planning {per_mb:.2f} s/MB, must {PLAN_CPU:g}"))
    if plan["anon"] > PLAN_ANON:
        checks.append(("must", f"planning {plan['anon'] // MIB} MiB anonymous, must {PLAN_ANON // MIB}"))
    if apply["anon"] > APPLY_ANON:
        checks.append(("must", f"applying {apply['anon'] // MIB} MiB anonymous, must {APPLY_ANON // MIB}"))
    speed = _speed(_plain(row) or row["full"], apply)
    if row["full"] > 1e6 and speed < APPLY_SPEED[0]:
        checks.append(("must", f"applying {speed:.0f} MB/s, must {APPLY_SPEED[0]:g}"))
    elif row["full"] > 1e6 and speed < APPLY_SPEED[1]:
        checks.append(("goal", f"applying {speed:.0f} MB/s, goal {APPLY_SPEED[1]:g}"))
    return checks


def _plain(row):
    """Bytes of the new file with its compressed streams opened, where the program tells them."""
    return sum(_ours(row)["account"].get(name, 0) for name in WORKS_ON["match"])


def _speed(count, cost):
    return count / 1e6 / max(cost["cpu"], 0.01)


def _verdict(checks):
    kinds = {kind for kind, _ in checks}
    return "must missed" if "must" in kinds else "goal missed" if "goal" in kinds else "met"


def _bytes(rows):
    table = [["pair", "MB", "distedge", *peers.NAMES, "must", "goal", "", "method"]]
    for row in rows:
        ours, pair = row.get("distedge"), row["pair"]
        cells = [pair.name, f"{row['full'] / 1e6:.2f}"]
        cells.append("-" if ours is None else _percent(share(row)) if _ours(row) else "failed")
        cells += [_percent(best(row, [name])) for name in peers.NAMES]
        cells += ["-" if pair.must is None else f"{pair.must:g}", "-" if pair.goal is None else f"{pair.goal:g}"]
        cells += [_verdict(_size_checks(row)), ours["method"]] if _ours(row) else ["", (ours or {}).get("error", "")]
        table.append(cells)
    return _columns(table, left={0, len(table[0]) - 2, len(table[0]) - 1})


def _percent(value):
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _mean(rows, complete):
    mean, count = mean_of(rows)
    lines = []
    if count:
        verdict = "met" if mean <= MEAN[1] else "goal missed" if mean <= MEAN[0] else "must missed"
        part = "" if complete else f" (of {count} pairs that ran)"
        lines.append(f"Geometric mean{part}: {mean:.2f} % (must {MEAN[0]:g}, goal {MEAN[1]:g}): {verdict}")
    groups = [("rsync, zsync and chunks", peers.TRANSFERS), ("xdelta3, bsdiff and zstd-patch", peers.PATCHES)]
    for title, names in groups:
        shares = [best(row, names) for row in rows if row["pair"].listed]
        if shares and None not in shares:
            value = math.exp(sum(map(math.log, shares)) / len(shares))
            lines.append(f"The best of {title} at each pair, geometric mean: {value:.2f} %")
    return "\n".join(lines)


def _costs(rows):
    table = [
        ["pair", "plan CPU s", "s/MB", "s/plain MB", "anon MiB", "RSS MiB"]
        + ["apply CPU s", "MB/s", "plain MB/s", "anon MiB", "RSS MiB", ""]
    ]
    for row in rows:
        ours = _ours(row)
        if not ours:
            continue
        plain, plan, apply = _plain(row), ours["plan"], ours["apply"]
        table.append(
            [
                row["pair"].name,
                f"{plan['cpu']:.2f}",
                f"{plan['cpu'] / (row['full'] / 1e6):.2f}",
                f"{plan['cpu'] / (plain / 1e6):.2f}" if plain else "-",
                f"{plan['anon'] / MIB:.0f}",
                f"{plan['rss'] / MIB:.0f}",
                f"{apply['cpu']:.2f}",
                f"{_speed(row['full'], apply):.0f}",
                f"{_speed(plain, apply):.0f}" if plain else "-",
                f"{apply['anon'] / MIB:.0f}",
                f"{apply['rss'] / MIB:.0f}",
                "; ".join(f"{kind} missed: {what}" for kind, what in _cost_checks(row)) or "met",
            ]
        )
    return _columns(table, left={0, len(table[0]) - 1})


def _slow_as_published(rows):
    """Says what the other reading of the figure for applying would say."""
    ours = [row for row in rows if _ours(row)]
    slow = [row["pair"].name for row in ours if _speed(row["full"], _ours(row)["apply"]) < APPLY_SPEED[0]]
    words = f"Applying is held against plain bytes; below {APPLY_SPEED[0]:g} MB/s of bytes as published: "
    return words + (", ".join(slow) or "none")


def _phases(rows):
    """What planning spent where, by the program's own clock, and per MB of what the phase worked on."""
    told = [row for row in rows if _ours(row) and _ours(row)["phases"]]
    names = list(dict.fromkeys(name for row in told for name in _ours(row)["phases"]))
    if not names:
        return "  the program told none"
    table, seconds, worked = [["pair", *names]], dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    for row in told:
        ours, cells = _ours(row), [row["pair"].name]
        for name in names:
            spent = ours["phases"].get(name)
            if spent is not None:
                seconds[name] += spent
                fields = WORKS_ON.get(name)
                worked[name] += sum(ours["account"].get(field, 0) for field in fields) if fields else row["full"]
            cells.append("-" if spent is None else f"{spent:.2f}")
        table.append(cells)
    table.append(["all", *(f"{seconds[name]:.2f}" for name in names)])
    per_mb = [f"{seconds[name] / (worked[name] / 1e6):.3f}" if worked[name] else "-" for name in names]
    table.append(["per MB worked on", *per_mb])
    return _columns(table, left={0})


def _accounts(rows):
    told = [row for row in rows if _ours(row) and _ours(row)["account"]]
    names = list(dict.fromkeys(name for row in told for name in _ours(row)["account"]))
    if not names:
        return "  the program told nothing"
    table = [["pair", *(name.replace("_", " ") for name in names)]]
    table += [[row["pair"].name, *(str(_ours(row)["account"].get(name, "-")) for name in names)] for row in told]
    return _columns(table, left={0})


def _bars(rows):
    width, lines = 48, []
    wide = max(len(row["pair"].name) for row in rows)
    for row in rows:
        bars = [
            ("distedge", share(row), "█"),
            ("best transfer", best(row, peers.TRANSFERS), "▒"),
            ("best patch", best(row, peers.PATCHES), "░"),
        ]
        for number, (what, value, ink) in enumerate(bars):
            if value is None:
                continue
            length = round(width * max(0.0, min(1.0, (math.log10(value) + 1) / 3)))
            name = row["pair"].name if number == 0 else ""
            lines.append(f"{name:<{wide}}  {what:<13} {ink * max(length, 1):<{width}} {_percent(value):>6} %")
    return "\n".join(lines)


def _columns(table, left):
    widths = [max(len(line[at]) for line in table) for at in range(len(table[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(widths[at]) if at in left else cell.rjust(widths[at]) for at, cell in enumerate(line)
        ).rstrip()
        for line in table
    )
