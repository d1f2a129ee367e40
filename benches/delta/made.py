"""Pairs that no registry holds as such: made from published ones, the same bytes each time."""

import gzip
import io
import lzma
import random
import shutil
import subprocess
import tarfile
import zipfile


class Missing(Exception):
    """What a pair is made of, or made with, is not there."""


def write(pair, version, fetch, directory):
    """Writes one file, the given version of `pair`, into `directory`.

    The package column reads `recipe:source[:member]`, the source being the name of another pair, whose "old" and
    "new" file `fetch` gives.
    """
    recipe, _, *member = pair.package.split(":")
    RECIPES[recipe](fetch, "old" if version == pair.old else "new", member, directory)


def _tar(fetch, which, _member, directory):
    """The tar inside a tarball, without its compression."""
    (directory / "package.tar").write_bytes(gzip.decompress(fetch(which).read_bytes()))


def _member(fetch, which, member, directory):
    """One member of a tarball or a wheel."""
    (directory / member[0].rsplit("/", 1)[-1]).write_bytes(_member_of(fetch(which), member[0]))


def _member_of(path, member):
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return archive.read(member)
    with tarfile.open(path) as archive:
        return archive.extractfile(member).read()


def _edited(fetch, which, member, directory):
    """One member of the old version; the new one is the same with 5 % of it edited."""
    content = _member_of(fetch("old"), member[0])
    name = member[0].rsplit("/", 1)[-1]
    (directory / name).write_bytes(content if which == "old" else edit(content, name))


def _edited_tar(fetch, which, _member, directory):
    """The tar of the old version; the new one has 5 % of each member edited."""
    with tarfile.open(fetch("old")) as archive, tarfile.open(directory / "package.tar", "w") as out:
        for entry in archive:
            content = archive.extractfile(entry).read() if entry.isfile() else b""
            if which == "new":
                content = edit(content, entry.name)
            entry.size = len(content) if entry.isfile() else 0
            out.addfile(entry, io.BytesIO(content))


def edit(content, seed):
    """5 % of `content` overwritten, inserted or removed, in runs of 16 bytes to 4 KiB at places the seed gives."""
    dice = random.Random(seed)
    out, at, budget = [], 0, len(content) // 20
    while budget > 0:
        run = min(dice.randint(16, 4096), budget)
        # The gaps are 19 times the runs on average: the edits end near the end.
        keep = dice.randint(0, 2 * 19 * run)
        out.append(content[at : at + keep])
        at = min(at + keep, len(content))
        kind = dice.randrange(3)
        if kind != 1:
            out.append(dice.randbytes(run))
        if kind != 0:
            at = min(at + run, len(content))
        budget -= run
        if at == len(content):
            break
    out.append(content[at:])
    return b"".join(out)


def _layer(fetch, which, member, directory):
    """What a .deb installs, as an image's layer: a PAX tar in gzip or zstd."""
    kind = member[0]
    layer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(_deb_data(fetch(which).read_bytes()))) as archive,
        tarfile.open(fileobj=layer, mode="w", format=tarfile.PAX_FORMAT) as out,
    ):
        for entry in archive:
            entry.name = entry.name.removeprefix("./").removeprefix(".")
            if not entry.name:
                continue
            entry.pax_headers = {}
            content = archive.extractfile(entry) if entry.isfile() else None
            out.addfile(entry, content)
    if kind == "gz":
        (directory / "layer.tar.gz").write_bytes(gzip.compress(layer.getvalue(), 6, mtime=0))
        return
    if shutil.which("zstd") is None:
        raise Missing("zstd is not installed")
    packed = subprocess.run(["zstd", "-3", "-c"], input=layer.getvalue(), capture_output=True, check=True).stdout
    (directory / "layer.tar.zst").write_bytes(packed)


def _deb_data(deb):
    """The plain data tar of a .deb (an ar archive)."""
    at = 8
    while at + 60 <= len(deb):
        name = deb[at : at + 16].decode().strip().rstrip("/")
        size = int(deb[at + 48 : at + 58])
        body = deb[at + 60 : at + 60 + size]
        if name == "data.tar.xz":
            return lzma.decompress(body)
        if name == "data.tar.gz":
            return gzip.decompress(body)
        if name == "data.tar":
            return body
        if name == "data.tar.zst":
            return subprocess.run(["zstd", "-dc"], input=body, capture_output=True, check=True).stdout
        at += 60 + size + size % 2
    raise Missing("the .deb has no data member")


RECIPES = {"tar": _tar, "member": _member, "edited": _edited, "edited-tar": _edited_tar, "layer": _layer}
