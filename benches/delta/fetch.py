"""Published pairs: read the list, bring both versions of each into the cache with the ordinary clients."""

import glob
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import made

PYTHON_TARGET = ["--python-version", "3.12", "--implementation", "cp"] + [
    word
    for platform in (
        "manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_24_x86_64 manylinux_2_17_x86_64 "
        "manylinux2014_x86_64 manylinux_2_12_x86_64 manylinux_2_5_x86_64 manylinux1_x86_64 any"
    ).split()
    for word in ("--platform", platform)
]
CLIENTS = {"npm": "npm", "pip": "pip", "crate": "cargo", "apt": "apt-get"}


class Unavailable(Exception):
    """A version or a client that is not to be had here: the pair is skipped, not failed."""


@dataclass
class Pair:
    name: str
    kind: str
    client: str
    package: str
    old: str
    new: str
    must: float | None
    goal: float | None

    @property
    def listed(self):
        """Whether the acceptance figures count this pair."""
        return self.must is not None


def read_pairs(path):
    pairs = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 8:
            raise SystemExit(f"{path}:{number}: 8 columns are wanted, {len(fields)} are there")
        share = [None if field == "-" else float(field) for field in fields[6:]]
        pairs.append(Pair(*fields[:6], *share))
    return pairs


def files(pair, cache, by_name):
    """The paths of the old and of the new file, downloaded where the cache lacks them."""
    return [_one(pair, version, cache, by_name) for version in (pair.old, pair.new)]


def _one(pair, version, cache, by_name):
    place = cache / pair.name / version
    present = [path for path in place.glob("*") if path.is_file()] if place.is_dir() else []
    if len(present) == 1:
        return present[0]
    if len(present) > 1:
        raise Unavailable(f"{place} holds {len(present)} files")
    if pair.client == "made":
        source = by_name.get(pair.package.split(":")[1])
        if source is None:
            raise Unavailable(f"{pair.package}: no such pair to make it of")
        ingredient = lambda which: _one(source, getattr(source, which), cache, by_name)
        write = lambda directory: made.write(pair, version, ingredient, directory)
    else:
        tool = CLIENTS[pair.client]
        if shutil.which(tool) is None:
            raise Unavailable(f"{tool} is not installed")
        write = lambda directory: DOWNLOADS[pair.client](pair.package, version, directory)
    place.parent.mkdir(parents=True, exist_ok=True)
    # A download that was cut leaves nothing that looks whole.
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".part-") as directory:
        try:
            write(Path(directory))
        except made.Missing as missing:
            raise Unavailable(str(missing)) from None
        got = [path for path in Path(directory).iterdir() if path.is_file()]
        if len(got) != 1:
            raise Unavailable(f"{pair.package} {version}: {len(got)} files came")
        place.mkdir(exist_ok=True)
        return got[0].rename(place / got[0].name)


def _client(command, directory, what):
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        told = [line for line in words if "rror" in line or line.startswith("E:")] or words or ["nothing"]
        raise Unavailable(f"{what}: {command[0]} says: {told[0][:200]}")


def _npm(package, version, directory):
    _client(["npm", "pack", "--loglevel=error", f"{package}@{version}"], directory, f"{package} {version}")


def _pip(package, version, directory):
    fixed = ["pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    _client([*fixed, *PYTHON_TARGET, "--dest", ".", f"{package}=={version}"], directory, f"{package} {version}")


def _crate(package, version, directory):
    what = f"{package} {version}"
    scratch = directory / "scratch"
    _client(["cargo", "init", "--quiet", "--vcs", "none", "--name", "scratch", "scratch"], directory, what)
    _client(["cargo", "add", "--quiet", f"{package}@={version}"], scratch, what)
    _client(["cargo", "fetch", "--quiet"], scratch, what)
    home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    found = glob.glob(f"{glob.escape(home)}/registry/cache/*/{package}-{version}.crate")
    shutil.rmtree(scratch)
    if not found:
        raise Unavailable(f"{what}: cargo's cache does not hold it")
    shutil.copy(found[0], directory)


def _apt(package, version, directory):
    # apt drops to a user of its own for downloads, who cannot write here.
    command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", f"{package}={version}"]
    _client(command, directory, f"{package} {version}")


DOWNLOADS = {"npm": _npm, "pip": _pip, "crate": _crate, "apt": _apt}
