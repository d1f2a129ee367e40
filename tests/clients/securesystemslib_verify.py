"""Verifies a DSSE envelope with securesystemslib, which shares no code with this project.

usage: securesystemslib_verify.py ENVELOPE THRESHOLD PUBLIC_KEY_PEM...

Prints the ids of the Ed25519 keys that signed and leaves with 0, or says why not and leaves with 1.
"""

import json
import sys

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey


def main() -> int:
    path, threshold, *pems = sys.argv[1:]
    with open(path, "rb") as file:
        wire = json.load(file)
    keys = []
    for pem in pems:
        with open(pem, "rb") as file:
            keys.append(SSlibKey.from_crypto(load_pem_public_key(file.read())))
    try:
        accepted = Envelope.from_dict(wire).verify(keys, int(threshold))
    except VerificationError as error:
        print(error)
        return 1
    print("\n".join(sorted(accepted)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
