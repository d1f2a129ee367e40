"""Runs a command and says what it cost."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

TIME = "/usr/bin/time"


class Failed(Exception):
    """The command exited with something else than 0."""


def run(command):
    """Runs `command`; returns its standard output, its messages, and its cost.

    Processor seconds are those of all threads, user and system. `rss` is the peak that `/usr/bin/time -v` tells: it
    counts pages of mapped files, which the kernel may drop. `anon` is the peak of anonymous memory, sampled.
    """
    with (
        tempfile.NamedTemporaryFile("r") as report,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as messages,
    ):
        timed = [TIME, "-v", "-o", report.name, *map(str, command)]
        process = subprocess.Popen(timed, stdin=subprocess.DEVNULL, stdout=out, stderr=messages)
        peak = _Peak(process.pid)
        peak.watch(process)
        out, words = (_text(file) for file in (out, messages))
        if process.returncode:
            last = words.strip().splitlines()[-1:] or [f"exit {process.returncode}"]
            raise Failed(f"{Path(command[0]).name}: {last[0]}")
        fields = dict(line.strip().rsplit(": ", 1) for line in report.read().splitlines() if ": " in line)
    return out, words, {
        "cpu": float(fields["User time (seconds)"]) + float(fields["System time (seconds)"]),
        "rss": int(fields["Maximum resident set size (kbytes)"]) * 1024,
        "anon": peak.bytes,
    }


def _text(file):
    file.seek(0)
    return file.read().decode(errors="replace")


class _Peak:
    """The largest anonymous memory that the child of `time` was seen with."""

    def __init__(self, parent):
        self.parent, self.child, self.bytes = parent, None, 0

    def watch(self, process):
        while process.poll() is None:
            self._sample()
            time.sleep(0.004)

    def _sample(self):
        try:
            if self.child is None:
                self.child = int(Path(f"/proc/{self.parent}/task/{self.parent}/children").read_text().split()[0])
            for line in Path(f"/proc/{self.child}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.bytes = max(self.bytes, int(line.split()[1]) * 1024)
        except (OSError, IndexError, ValueError):
            pass


def available():
    return os.access(TIME, os.X_OK)
