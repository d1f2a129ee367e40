"""The peers: how many bytes each would move, given the old file at the receiver.

Each function returns bytes on the wire. Results are kept beside the corpus, by what was compared and by the tool's
version, since some of them take minutes.
"""

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import measure


def rsync(old, new, directory):
    """Sent and received by both ends, with and without `--compress`, whichever is less."""
    best = None
    for extra in ([], ["--compress"]):
        shutil.copy(old, directory / "there")
        command = ["rsync", "--ignore-times", "--no-whole-file", "--stats", *extra, new, directory / "there"]
        out, _, cost = measure.run(command)
        moved = sum(int(n.replace(",", "")) for n in re.findall(r"Total bytes (?:sent|received): ([\d,]+)", out))
        if best is None or moved < best[0]:
            best = moved, cost
    return best


def zsync(old, new, directory):
    """Bodies of all answers, the .zsync included; with the look into gzip where it gives the same file."""
    best = None
    for extra in ([], ["-Z"]):
        shutil.copy(new, directory / "blob")
        with _Server(directory) as server:
            make = ["zsyncmake", *extra, "-u", f"{server.url}/blob", "-o", directory / "blob.zsync", directory / "blob"]
            measure.run(make)
            got = directory / "got"
            got.unlink(missing_ok=True)
            try:
                _, _, cost = measure.run(["zsync", "-i", old, "-o", got, f"{server.url}/blob.zsync"])
            except measure.Failed:
                continue
            if not got.exists() or not same(got, new):
                continue
            if best is None or server.sent < best[0]:
                best = server.sent, cost
    if best is None:
        raise measure.Failed("zsync gave another file")
    return best


class _Server:
    """An HTTP server on the loopback that knows ranges, which zsync needs, and counts what it sends."""

    def __init__(self, root):
        outer = self
        self.sent = 0

        class Answer(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                data = (root / Path(self.path).name).read_bytes()
                ranges = [tuple(map(int, r)) for r in re.findall(r"(\d+)-(\d+)", self.headers.get("Range", ""))]
                kind, head = "application/octet-stream", None
                if len(ranges) == 1:
                    first, last = ranges[0]
                    head = _content_range(data, first, last)
                    data = data[first : last + 1]
                elif ranges:
                    kind = "multipart/byteranges; boundary=next"
                    parts = [_part(data, first, last) for first, last in ranges]
                    data = b"".join(parts) + b"\r\n--next--\r\n"
                self.send_response(206 if ranges else 200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                if head:
                    self.send_header("Content-Range", head)
                self.end_headers()
                self.wfile.write(data)
                outer.sent += len(data)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def _part(data, first, last):
    head = f"\r\n--next\r\nContent-Range: {_content_range(data, first, last)}\r\n\r\n"
    return head.encode() + data[first : last + 1]


def _content_range(data, first, last):
    return f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"


def casync(size):
    """Chunks, zstd each, that the old file's store lacks, and the new index; `size` is the average chunk."""

    def chunks(old, new, directory):
        store = directory / "store.castr"
        make = ["casync", "make", f"--store={store}", f"--chunk-size={size}", "--compression=zstd"]
        measure.run([*make, directory / "old.caibx", old])
        before = set(store.rglob("*.cacnk"))
        _, _, cost = measure.run([*make, directory / "new.caibx", new])
        added = set(store.rglob("*.cacnk")) - before
        return sum(path.stat().st_size for path in added) + (directory / "new.caibx").stat().st_size, cost

    return chunks


def xdelta3(old, new, directory):
    # -D: by itself it runs gunzip on both files, and what it gives back is not the same file.
    window = max(64 << 20, old.stat().st_size)
    return _patch(["xdelta3", "-9", "-D", "-B", window, "-e", "-f", "-s", old, new, directory / "patch"], directory)


def bsdiff(old, new, directory):
    return _patch(["bsdiff", old, new, directory / "patch"], directory)


def zstd(old, new, directory):
    command = ["zstd", "-q", "-f", "-19", "--long=31", f"--patch-from={old}", new, "-o", directory / "patch"]
    return _patch(command, directory)


def _patch(command, directory):
    _, _, cost = measure.run(command)
    return (directory / "patch").stat().st_size, cost


# name, tool, how its version is asked for, whether it takes minutes, how it is measured
PEERS = [
    ("rsync", "rsync", ["--version"], False, rsync),
    ("zsync", "zsync", ["-V"], False, zsync),
    ("chunks 16K", "casync", ["--version"], False, casync(16384)),
    ("chunks 64K", "casync", ["--version"], False, casync(65536)),
    ("xdelta3", "xdelta3", ["-V"], True, xdelta3),
    ("bsdiff", "bsdiff", None, True, bsdiff),
    ("zstd-patch", "zstd", ["-V"], True, zstd),
]
NAMES = [peer[0] for peer in PEERS]
TRANSFERS = NAMES[:4]
PATCHES = NAMES[4:]


def _keep(store, name, result):
    """Adds one result; another run may have added to the file meanwhile."""
    store.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(store.read_text()) if store.exists() else {}
    known[name] = result
    partial = store.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(known, indent=1))
    partial.replace(store)


def same(one, other):
    return digest(one) == digest(other)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(tool, question):
    if question is None:
        return "1"
    done = subprocess.run([tool, *question], capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def results(pair, old, new, cache, quick=False, fresh=False, say=print):
    """What each peer would move for this pair: name to {bytes, cpu, rss}, or to {error}."""
    store = cache / ".peers" / f"{pair.name}.json"
    known = json.loads(store.read_text()) if store.exists() else {}
    content = f"{digest(old)} {digest(new)}"
    found = {}
    for name, tool, question, slow, work in PEERS:
        if shutil.which(tool) is None:
            found[name] = {"error": f"{tool} is not installed"}
            continue
        version = _version(tool, question)
        kept = known.get(name)
        if kept and kept["version"] == version and kept["content"] == content and not fresh:
            found[name] = kept
            continue
        if quick and slow:
            found[name] = {"error": "left out (--quick)"}
            continue
        say(f"{pair.name}: {name}")
        with tempfile.TemporaryDirectory(dir=cache, prefix=".peer-") as directory:
            try:
                moved, cost = work(old, new, Path(directory))
            except measure.Failed as failed:
                found[name] = {"error": str(failed)}
                continue
        found[name] = {"version": version, "content": content, "bytes": moved, **cost}
        _keep(store, name, found[name])
    return found
