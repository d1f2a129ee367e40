"""Verifies a DSSE envelope with securesystemslib, which shares no code with this project.

usage: securesystemslib_verify.py ENVELOPE THRESHOLD PUBLIC_KEY_HEX...

Prints the ids of the Ed25519 keys that signed and leaves with 0, or says why not and leaves with 1.
"""

import base64
import json
import sys

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey, Signature
from securesystemslib.signer._utils import compute_default_keyid


def main() -> int:
    path, threshold, *publics = sys.argv[1:]
    with open(path, "rb") as file:
        wire = json.load(file)
    signatures = {
        one["keyid"]: Signature(one["keyid"], base64.b64decode(one["sig"]).hex())
        for one in wire["signatures"]
    }
    envelope = Envelope(base64.b64decode(wire["payload"]), wire["payloadType"], signatures)
    keys = []
    for public in publics:
        value = {"public": public}
        keyid = compute_default_keyid("ed25519", "ed25519", value)
        keys.append(SSlibKey(keyid, "ed25519", "ed25519", value))
    try:
        accepted = envelope.verify(keys, int(threshold))
    except VerificationError as error:
        print(error)
        return 1
    print("\n".join(sorted(accepted)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
