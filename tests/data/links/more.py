"""Prints more vectors of signed URLs, as JSON: tests/data/links/more.json is what it prints.

Needs the package `cryptography` for the v2 tokens.
"""

import base64
import hashlib
import hmac
import json
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ISSUED = 1_800_000_000
KEYS = {"k1": bytes(range(32)), "h2": bytes(32)}
PAIRS = {"ed1": Ed25519PrivateKey.from_private_bytes(b"\x01" * 32), "ed2": Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)}
FILE = "generic-local/app/1.0/a b.bin"
GET = "GET /generic-local/app/1.0/a%20b.bin"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**more):
    base = {"v": 1, "id": "01JD7ZC5N0E8T4S1Q2W3X4Y5Z6", "ten": "acme", "res": [{"e": FILE}], "iat": ISSUED, "exp": ISSUED + 3600}
    base.update(more)
    return {name: value for name, value in base.items() if value is not ...}


def token(body, key="k1", prefix=None, domain=b"edge-url-token\n"):
    payload = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    prefix = prefix or ("v2" if key in PAIRS else "v1")
    text = f"{prefix}.{key}.{b64(payload)}"
    if key in PAIRS:
        tag = PAIRS[key].sign(domain + text.encode())
    else:
        tag = hmac.new(KEYS.get(key, bytes(32)), domain + text.encode(), hashlib.sha256).digest()
    return f"{text}.{b64(tag)}"


vectors = []


def case(name, made, expect, cause=None, request=GET, now=ISSUED + 100, client="203.0.113.7", country="DE"):
    row = dict(name=name, token=made, request=request, now=now, client_ip=client, country=country, expect=expect)
    if cause:
        row["cause"] = cause
    vectors.append(row)


good = token(claims(), "ed1")
case("v2 ok", good, "allow")
case("v2, last valid second", good, "allow", now=ISSUED + 3599)
case("v2, expired", good, "deny", "expired", now=ISSUED + 3600)
case("v2, other key's signature", good.replace(".ed1.", ".ed2."), "deny", "bad-tag")
case("v2, unknown key", good.replace(".ed1.", ".ed9."), "deny", "unknown-key")
case("v2, without the domain prefix", token(claims(), "ed1", domain=b""), "deny", "bad-tag")
case("v2, signature cut to 32 bytes", good.rsplit(".", 1)[0] + "." + b64(b"\0" * 32), "deny", "bad-tag")
case("v2, all-zero signature", good.rsplit(".", 1)[0] + "." + b64(bytes(64)), "deny", "bad-tag")
case("v1 prefix with an Ed25519 key", "v1" + good[2:], "400", "wrong-algorithm")
case("v1 prefix with an Ed25519 key, HMAC of its public bytes", token(claims(), "k1", "v1").replace(".k1.", ".ed1."), "400", "wrong-algorithm")
case("v2 prefix with an HMAC key", token(claims(), "k1", "v2"), "400", "wrong-algorithm")
case("v3", "v3" + good[2:], "400", "malformed")
case("V1", "V1" + token(claims())[2:], "400", "malformed")
case("no prefix", token(claims())[3:], "400", "malformed")
case("empty", "", "400", "malformed")
case("dots", "...", "400", "malformed")
case("key id with a slash", token(claims()).replace(".k1.", "./k1."), "400", "malformed")
case("key id of 33 characters", token(claims()).replace(".k1.", "." + "k" * 33 + "."), "400", "malformed")
case("leading space", " " + token(claims()), "400", "malformed")
case("trailing line feed", token(claims()) + "\n", "400", "malformed")
case("standard alphabet", token(claims()).replace("-", "+").replace("_", "/") + "/", "400", "malformed")
case("2,049 bytes", token(claims(sub="x" * 128)) + "A" * 2049, "400", "malformed")
case("tag of 33 bytes", token(claims()).rsplit(".", 1)[0] + "." + b64(bytes(33)), "deny", "bad-tag")

case("no optional claim", token(claims()), "allow")
case("every claim", token(claims(nbf=ISSUED, m=["GET"], aud=["edge-eu"], ip=["203.0.113.0/24"], cc=["DE"], n=3, bps=1000, sub="cust-42", ep=0)), "allow")
case("n with a folder", token(claims(res=[{"p": "generic-local/app/"}], aud=["edge-eu"], n=1)), "deny", "bad-claims")
case("n with two artifacts", token(claims(res=[{"e": FILE}, {"e": FILE + "2"}], aud=["edge-eu"], n=1)), "deny", "bad-claims")
case("n without an edge", token(claims(n=1)), "deny", "bad-claims")
case("n for a group", token(claims(n=1, aud=["europe"])), "deny", "audience")
case("for a group", token(claims(aud=["europe"])), "allow")
case("for another group", token(claims(aud=["asia"])), "deny", "audience")
case("sha with a folder", token(claims(res=[{"p": "generic-local/app/"}], sha="0" * 64)), "deny", "bad-claims")
case("whole repository", token(claims(res=[{"p": "generic-local/"}])), "allow")
case("second of two resources", token(claims(res=[{"p": "generic-local/x/"}, {"e": FILE}])), "allow")
case("folder that is the path", token(claims(res=[{"p": FILE + "/"}])), "deny", "resource")
case("17 resources", token(claims(res=[{"e": f"r/{n}"} for n in range(16)] + [{"e": FILE}])), "deny", "bad-claims")
case("366 days", token(claims(exp=ISSUED + 366 * 86400)), "deny", "bad-claims")
case("365 days", token(claims(exp=ISSUED + 365 * 86400)), "allow", now=ISSUED + 365 * 86400 - 1)
case("HEAD with GET alone", token(claims(m=["GET"])), "allow", request=GET.replace("GET", "HEAD"))
case("GET with HEAD alone", token(claims(m=["HEAD"])), "deny", "method")
case("POST", token(claims()), "deny", "method", request=GET.replace("GET", "POST"))
case("stored policy that is not there", token(claims(pol="partners")), "deny", "policy-gone")
case("network, unknown address", token(claims(ip=["0.0.0.0/0"])), "deny", "address", client=None)
case("IPv6 inside", token(claims(ip=["2001:db8::/32"])), "allow", client="2001:db8:1::7")
case("IPv6 network, IPv4 client", token(claims(ip=["::/0"])), "deny", "address")
case("network with host bits", token(claims(ip=["203.0.113.7/24"])), "deny", "bad-claims")
case("lower-case country", token(claims(cc=["de"])), "deny", "bad-claims")
case("payload not JSON", token(b"x"), "deny", "bad-claims")
case("payload with a byte order mark", token(b"\xef\xbb\xbf" + json.dumps(claims()).encode()), "deny", "bad-claims")
case("payload of two texts", token(json.dumps(claims()).encode() * 2), "deny", "bad-claims")
for name, value in (("1e99", "1e99"), ("negative", "-1"), ("text", '"1800003600"'), ("fraction", "1800003600.0"), ("null", "null")):
    raw = json.dumps(claims(exp=...))[:-1] + f', "exp": {value}}}'
    case(f"exp as {name}", token(raw.encode()), "deny", "bad-claims")

public = {name: "ed25519:" + pair.public_key().public_bytes_raw().hex() for name, pair in PAIRS.items()}
out = dict(keys_hex={name: key.hex() for name, key in KEYS.items()}, public_keys=public, edge_id="edge-eu", tenant="acme", groups=["europe"], vectors=vectors)
json.dump(out, sys.stdout, indent=1)
print()
