#!/usr/bin/env python3
"""Verify an export of a distedge audit log without distedge.

  verify-audit.py EXPORT.tar ed25519:<64 hex digits of the edge's key> [WITNESS=ed25519:<hex> ...]

Every line of entries.jsonl is hashed into an RFC 6962 tree; its root must be the one that the edge signed
(C2SP tlog-checkpoint), and on the way the one that each witness cosigned (C2SP tlog-cosignature).
"""
import base64, hashlib, json, struct, sys, tarfile
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def fail(why):
    sys.exit(f"NOT GOOD: {why}")


sha256 = lambda data: hashlib.sha256(data).digest()
key = lambda text: bytes.fromhex(text.removeprefix("ed25519:"))


def checkpoint(note, name, public, kind):
    """Origin, size and root of a note, if `name` signed it (kind 1) or cosigned it (kind 4)."""
    body, lines = note.rsplit("\n\n", 1)
    body += "\n"
    key_id = sha256(name.encode() + b"\n" + bytes([kind]) + public)[:4]
    for line in lines.splitlines():
        dash, who, signature = line.split(" ")
        signature = base64.b64decode(signature, validate=True)
        if dash == "\u2014" and who == name and signature[:4] == key_id:
            message, signature = body, signature[4:]
            if kind == 4:
                (time,) = struct.unpack(">Q", signature[:8])
                message, signature = f"cosignature/v1\ntime {time}\n{body}", signature[8:]
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message.encode())
            origin, size, root = body.splitlines()
            return origin, int(size), base64.b64decode(root, validate=True)
    fail(f"there is no signature of {name}")


def push(stack, node, size):
    """Adds a leaf to the complete subtrees of a tree of `size` leaves, largest first."""
    while size & 1:
        node, size = sha256(b"\x01" + stack.pop() + node), size >> 1
    stack.append(node)


def root(stack):
    node = stack[-1] if stack else sha256(b"")
    for left in reversed(stack[:-1]):
        node = sha256(b"\x01" + left + node)
    return node


def main(path, edge, *witnesses):
    tar = tarfile.open(path)
    text = lambda name: tar.extractfile(name).read().decode()
    note = text("checkpoint")
    origin, size, signed = checkpoint(note, note.split("\n", 1)[0], key(edge), 1)
    expected = {size: signed}
    for name, public in (witness.split("=", 1) for witness in witnesses):
        seen, at, value = checkpoint(text("cosigned"), name, key(public), 4)
        if seen != origin or expected.setdefault(at, value) != value or at > size:
            fail(f"{name} saw another log: {seen}, {at} entries")
    stack, count = [], 0
    for line in tar.extractfile("entries.jsonl"):
        entry = line.removesuffix(b"\n")
        if json.loads(entry)["seq"] != count:
            fail(f"entry {count} is not where it should be")
        push(stack, sha256(b"\x00" + entry), count)
        count += 1
        if count in expected and root(stack) != expected.pop(count):
            fail(f"an entry before number {count} was changed")
    if expected:
        fail(f"there are {count} entries, {size} were signed")
    print(f"good: {origin}, {count} entries, {len(witnesses)} witnesses")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 2 else sys.exit(__doc__)
