"""Prints what botocore and Akamai's EdgeAuth make of fixed URLs, keys and times, as JSON.

Cloud CDN has no such library on PyPI: its URLs are made here after its documentation.
tests/data/cdn/goldens.json holds what this prints.
"""

import base64
import datetime
import hashlib
import hmac
import json
import os
import sys

# EdgeAuth sets the zone to GMT for itself; botocore reads naive times in the zone of the process.
os.environ["TZ"] = "GMT"

from akamai.edgeauth import EdgeAuth
from botocore.signers import CloudFrontSigner

STARTS, EXPIRES = 1_800_000_000, 1_800_003_600
URL = "https://cdn.example.com/generic-local/app/1.0/a%20b.bin"
PREFIX = "https://cdn.example.com/generic-local/app/1.0/"
PATH = "/generic-local/app/1.0/a%20b.bin"
AKAMAI_KEY = bytes(range(32)).hex()
GOOGLE_KEY = bytes(range(16))


def moment(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def message_signature(message):
    """In the place of an RSA signature: bytes that depend on the message, with every character of base64."""
    return b"\xfb\xff\xfe" + hashlib.sha512(message).digest() * 2


def cloudfront():
    signer = CloudFrontSigner("K2JCJMDEHXQW5F", message_signature)
    custom = lambda resource, **more: signer.build_policy(resource, moment(EXPIRES), **more)
    yield "canned", URL, {}, signer.generate_presigned_url(URL, date_less_than=moment(EXPIRES))
    query = URL + "?size=large"
    yield "canned, query", query, {}, signer.generate_presigned_url(query, date_less_than=moment(EXPIRES))
    more = dict(date_greater_than=moment(STARTS), ip_address="203.0.113.0/24")
    limits = dict(starts=STARTS, network="203.0.113.0/24")
    yield "custom", URL, limits, signer.generate_presigned_url(URL, policy=custom(URL, **more))
    one = dict(network="203.0.113.7/32")
    policy = custom(URL, ip_address="203.0.113.7")
    yield "custom, address", URL, one, signer.generate_presigned_url(URL, policy=policy)
    policy = custom(PREFIX + "*")
    yield "custom, prefix", URL, dict(prefix=PREFIX), signer.generate_presigned_url(URL, policy=policy)


def google():
    def signature(text):
        digest = hmac.new(GOOGLE_KEY, text.encode(), hashlib.sha1).digest()
        return base64.urlsafe_b64encode(digest).decode()

    end = f"Expires={EXPIRES}&KeyName=edge-key"
    for name, url in (("url", URL), ("url, query", URL + "?size=large")):
        signed = f"{url}{'&' if '?' in url else '?'}{end}"
        yield name, url, {}, f"{signed}&Signature={signature(signed)}"
    policy = f"URLPrefix={base64.urlsafe_b64encode(PREFIX.encode()).decode()}&{end}"
    yield "prefix", URL, dict(prefix=PREFIX), f"{URL}?{policy}&Signature={signature(policy)}"


def akamai():
    def auth(**more):
        return EdgeAuth(key=AKAMAI_KEY, end_time=EXPIRES, **more)

    def row(name, token, limits=None, options=None, acl=None):
        shown = {"salt": "salt", "session_id": "session", "payload": "data", "escape_early": "escape_early"}
        options = {shown[key]: value for key, value in (options or {}).items()}
        return name, PATH, limits or {}, token, options, acl

    yield row("url", auth().generate_url_token(PATH))
    yield row("url, start", auth(start_time=STARTS).generate_url_token(PATH), dict(starts=STARTS))
    token = auth(ip="203.0.113.7").generate_url_token(PATH)
    yield row("url, address", token, dict(network="203.0.113.7/32"))
    token = auth(ip="2001:db8::7", escape_early=True).generate_url_token(PATH)
    yield row("url, IPv6 address, early", token, dict(network="2001:db8::7/128"), dict(escape_early=True))
    options = dict(salt="grains", session_id="s 1/2", payload="a=b&c\u00e9", escape_early=True)
    limits = dict(starts=STARTS, network="203.0.113.7/32")
    token = auth(start_time=STARTS, ip="203.0.113.7", **options).generate_url_token(PATH)
    yield row("url, everything, early", token, limits, options)
    options = dict(salt="grains", session_id="s1", payload="a=b")
    yield row("url, everything", auth(**options).generate_url_token(PATH), {}, options)
    acl = ["/generic-local/app/1.0/*"]
    yield row("acl", auth().generate_acl_token(acl), acl=acl)
    acl = ["/a/*", "/b?/*"]
    token = auth(start_time=STARTS, salt="grains").generate_acl_token(acl)
    yield row("acl, two", token, dict(starts=STARTS), dict(salt="grains"), acl)


def rows(cases):
    keys = ("name", "url", "limits", "signed", "options", "acl")
    return [dict(zip(keys, case)) for case in cases]


goldens = {
    "expires": EXPIRES,
    "akamai_key": AKAMAI_KEY,
    "google_key": GOOGLE_KEY.hex(),
    "cloudfront": rows(cloudfront()),
    "google": rows(google()),
    "akamai": rows(akamai()),
}
json.dump(goldens, sys.stdout, indent=1, sort_keys=True)
print()
