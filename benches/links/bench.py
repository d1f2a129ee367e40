"""Signed links on an edge beside nginx's secure_link: server CPU time per request, interleaved rounds.

Prints medians over the rounds and the ratio to nginx. CPU time is user + system of all processes of a
server, from /proc, so what else the machine does matters little.
"""

import base64
import hashlib
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = ROOT / "target/release/examples"
FILES, CONNECTIONS, SECRET = 64, 64, "a secret of nginx"
SIZES = {"1 KiB": 1024, "16 KiB": 16384}


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url):
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=1).read()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing answers at {url}")


def call(base, token, method, path, body=None):
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(base + path, data=data, method=method)
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def processor_time(pids):
    ticks = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def workers(pid):
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


LUA = """
local paths, at = {}, 0
for line in io.lines(os.getenv("PATHS")) do paths[#paths + 1] = line end
request = function()
    at = at % #paths + 1
    return wrk.format("GET", paths[at])
end
"""


def load(base, paths, pids, seconds, work):
    (work / "paths").write_text("\n".join(paths) + "\n")
    (work / "wrk.lua").write_text(LUA)
    before = processor_time(pids)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", work / "wrk.lua", base]
    printed = subprocess.run(
        command, env={**os.environ, "PATHS": str(work / "paths")}, capture_output=True, text=True, check=True
    ).stdout
    spent = processor_time(pids) - before
    if "Non-2xx" in printed or "Socket errors" in printed:
        sys.exit(f"requests failed:\n{printed}")
    requests = int(re.search(r"(\d+) requests in", printed)[1])
    return spent / requests * 1e6


def nginx(work, files):
    port = free_port()
    (work / "nginx").mkdir()
    (work / "nginx.conf").write_text(f"""
user root; worker_processes 1; pid {work}/nginx.pid; error_log {work}/nginx.err;
events {{ worker_connections 1024; }}
http {{
  access_log {work}/nginx.log;
  sendfile on; tcp_nopush on; keepalive_requests 100000000; open_file_cache max=1000;
  client_body_temp_path {work}/nginx; proxy_temp_path {work}/nginx; fastcgi_temp_path {work}/nginx;
  uwsgi_temp_path {work}/nginx; scgi_temp_path {work}/nginx;
  server {{
    listen 127.0.0.1:{port}; root {files};
    location / {{
      secure_link $arg_md5,$arg_expires;
      secure_link_md5 "$secure_link_expires$uri {SECRET}";
      if ($secure_link = "") {{ return 403; }}
      if ($secure_link = "0") {{ return 410; }}
    }}
  }}
}}
""")
    process = subprocess.Popen(["nginx", "-c", work / "nginx.conf", "-g", "daemon off;"])
    while not (work / "nginx.pid").exists() or not workers(process.pid)[1:]:
        time.sleep(0.05)
    return process, f"http://127.0.0.1:{port}"


def secure_link(path):
    expires = int(time.time()) + 86400
    digest = hashlib.md5(f"{expires}{path} {SECRET}".encode()).digest()
    return f"{path}?md5={base64.urlsafe_b64encode(digest).decode().rstrip('=')}&expires={expires}"


def edge(work, files):
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    quiet = {**os.environ, "DISTEDGE_LOG": "error", "DISTEDGE_SOURCE_DATA": str(work / "source")}
    process = subprocess.Popen(
        [BIN / "edge", "--data", work / "edge", "--name", "bench", "--listen", f"127.0.0.1:{port}"]
        + ["--token-file", work / "token"],
        env=quiet,
        stdout=subprocess.DEVNULL,
    )
    wait_for(base + "/readyz")
    source = lambda *words: subprocess.run(
        [BIN / "source", *map(str, words)], env=quiet, check=True, stdout=subprocess.DEVNULL
    )
    source("init")
    for name in sorted(os.listdir(files / "files")):
        source("add", f"files/{name}", *sorted((files / "files" / name).iterdir()), "--label", "bench")
    source("bundle", "create", "bench", "1", "--label", "bench", "--sign")
    source("edge", "add", "bench", base, "--token-file", work / "token")
    source("distribute", "bench", "1", "--edge", "bench")
    token = (work / "token").read_text().strip()
    call(base, token, "PUT", "/api/v1/repositories/public", {"public": True})
    return process, base, token


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    work = pathlib.Path(tempfile.mkdtemp(prefix="links-"))
    files = work / "files"
    paths = {}
    for size, length in SIZES.items():
        name = size.replace(" ", "").lower()
        folder = files / "files" / name
        folder.mkdir(parents=True)
        for at in range(FILES):
            (folder / f"{at}.bin").write_bytes(os.urandom(length))
        paths[size] = [f"/files/{name}/{at}.bin" for at in range(FILES)]
    started = []
    try:
        peer, peer_base = nginx(work, files)
        started.append(peer)
        ours, base, token = edge(work, files)
        started.append(ours)

        keys = {}
        for algorithm in ("v1", "v2"):
            keys[algorithm] = call(base, token, "POST", "/api/v1/link-keys", {"algorithm": algorithm})

        def minted(path, algorithm):
            repository, rest = path.lstrip("/").split("/", 1)
            body = {"repository": repository, "path": rest, "algorithm": algorithm}
            url = call(base, token, "POST", "/api/v1/links", body)["url"]
            return "/" + url.split("/", 3)[3] if "://" in url else url

        print(f"{rounds} rounds of {seconds} s, {CONNECTIONS} connections, {FILES} files; CPU us per request")
        print(f"{'size':8} {'server':28} {'median':>8} {'ratio':>7}")
        for size in SIZES:
            cases = [
                ("nginx secure_link, log", peer_base, [secure_link(path) for path in paths[size]], peer.pid),
                ("edge, v1 links, audit", base, [minted(path, "v1") for path in paths[size]], ours.pid),
                ("edge, v2 links, audit", base, [minted(path, "v2") for path in paths[size]], ours.pid),
            ]
            figures = {name: [] for name, *_ in cases}
            for turn in range(rounds):
                for name, at, targets, pid in cases[turn % 3 :] + cases[: turn % 3]:
                    figures[name].append(load(at, targets, workers(pid), seconds, work))
            reference = figures[cases[0][0]]
            for name, *_ in cases:
                ratio = statistics.median(a / b for a, b in zip(figures[name], reference))
                print(f"{size:8} {name:28} {statistics.median(figures[name]):8.1f} {ratio:7.2f}", flush=True)
    finally:
        for process in started:
            process.terminate()
            process.wait()
        shutil.rmtree(work, ignore_errors=True)


main()
