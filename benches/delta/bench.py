"""The table of what each published pair costs to move, the checks against the figures, and the chart."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import chart
import fetch
import measure
import peers
import report

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent


def main():
    asked = arguments()
    if not measure.available():
        raise SystemExit(f"{measure.TIME} is not installed")
    cache = Path(os.environ.get("DELTA_CORPUS", PROJECT / "target/delta-corpus")).resolve()
    out = PROJECT / "target/delta-bench"
    cache.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    pairs = fetch.read_pairs(HERE / "pairs.tsv")
    by_name = {pair.name: pair for pair in pairs}
    chosen = choose(pairs, by_name, asked)
    program = None if asked.peers_only or asked.download else build(asked.program)

    rows, skipped = [], []
    for pair in chosen:
        say(f"{pair.name}: files")
        try:
            old, new = fetch.files(pair, cache, by_name)
        except fetch.Unavailable as missing:
            skipped.append((pair, str(missing)))
            say(f"{pair.name}: skipped: {missing}")
            continue
        if asked.download:
            continue
        row = {"pair": pair, "full": new.stat().st_size}
        if program:
            say(f"{pair.name}: distedge")
            row["distedge"] = distedge(program, pair, old, new, asked, out)
        row["peers"] = {} if asked.no_peers else peers.results(pair, old, new, cache, asked.quick, asked.fresh, say)
        rows.append(row)
    say("")
    if asked.download:
        return
    complete = not asked.pair and not skipped
    print(report.everything(rows, skipped, complete))
    save(rows, skipped, out)
    if program and rows:
        (out / "chart.svg").write_text(chart.svg(rows))
        print(f"\nchart: {out / 'chart.svg'}\nresults: {out / 'results.json'}")
    missed = report.missed(rows)
    if missed and program and not asked.no_check:
        print("\n".join(["", "musts missed:", *(f"  {line}" for line in missed)]), file=sys.stderr)
        sys.exit(1)


def arguments():
    parser = argparse.ArgumentParser(
        prog="benches/delta/run",
        description="Bytes that distedge and its peers move for published pairs of releases, and what it costs.",
        epilog="The corpus is kept in target/delta-corpus, or where DELTA_CORPUS says.",
    )
    flag = {"action": "store_true"}
    parser.add_argument("--pair", action="append", metavar="NAME", help="only this pair; may be given again")
    parser.add_argument("--listed", **flag, help="only the pairs of the acceptance figures")
    parser.add_argument("--quick", **flag, help="peers that take minutes only where their results are kept")
    parser.add_argument("--no-peers", **flag, help="distedge alone")
    parser.add_argument("--peers-only", **flag, help="without distedge")
    parser.add_argument("--fresh", **flag, help="run all peers again")
    parser.add_argument("--no-check", **flag, help="exit 0 even if a must is missed")
    parser.add_argument("--download", **flag, help="fill the cache and stop")
    parser.add_argument("--effort", metavar="N", help="handed to the program")
    parser.add_argument("--program", metavar="PATH", help="the built example `delta`; cargo builds it otherwise")
    return parser.parse_args()


def choose(pairs, by_name, asked):
    for name in asked.pair or []:
        if name not in by_name:
            raise SystemExit(f"no pair is named {name}; there are: {' '.join(by_name)}")
    return [
        pair
        for pair in pairs
        if (not asked.pair or pair.name in asked.pair) and (not asked.listed or pair.listed)
    ]


def build(given):
    """The path of the example that plans and applies, built in release mode."""
    if given:
        return Path(given).resolve()
    say("building examples/delta.rs")
    command = ["cargo", "build", "--quiet", "--release", "--example", "delta"]
    subprocess.run(command, cwd=PROJECT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))
    return target / "release/examples/delta"


def distedge(program, pair, old, new, asked, out):
    """Plans and applies once; the bytes, the costs of both, and whether the file came back the same."""
    with tempfile.TemporaryDirectory(dir=out, prefix=".pair-") as directory:
        patch, got = Path(directory) / "patch", Path(directory) / "got"
        diff = [program, "diff", "--old", old, "--new", new, "--out", patch, "--explain"]
        if asked.effort is not None:
            diff += ["--effort", asked.effort]
        try:
            words, explained, planning = measure.run(diff)
            (out / f"{pair.name}.explain.txt").write_text(words + explained)
            told = line(words)
            _, _, applying = measure.run([program, "apply", "--old", old, "--patch", patch, "--out", got])
        except measure.Failed as failed:
            return {"error": str(failed)}
        if not peers.same(got, new):
            return {"error": "what apply gave is another file"}
        return {
            "bytes": patch.stat().st_size,
            "method": told.get("method", "?"),
            "account": told.get("account") or {},
            "phases": told.get("cpu_seconds") or {},
            "plan": planning,
            "apply": applying,
        }


def line(words):
    """The JSON line among what the program printed; what is no JSON is for people."""
    for text in reversed(words.splitlines()):
        if text.startswith("{"):
            try:
                return json.loads(text)
            except ValueError:
                continue
    return {}


def save(rows, skipped, out):
    kept = [{**row, "pair": vars(row["pair"])} for row in rows]
    left = [{"pair": pair.name, "why": why} for pair, why in skipped]
    (out / "results.json").write_text(json.dumps({"rows": kept, "skipped": left}, indent=1) + "\n")


def say(words):
    """What goes on, on one line that is written over."""
    if sys.stderr.isatty():
        print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)
    elif words:
        print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
