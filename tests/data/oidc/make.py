"""Writes keys.json and tokens.json anew: tokens as PyJWT signs them. The private keys are forgotten.

    pip install 'pyjwt[crypto]' && python3 tests/data/oidc/make.py
"""
import json, pathlib
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

HERE = pathlib.Path(__file__).parent
NOW = 1_800_000_000
CLAIMS = {
    "iss": "https://id.acme.test", "aud": ["edge"], "sub": "alice", "jti": "t-1",
    "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 600,
    "groups": ["builders", "staff"], "weight": -1.5,
}

keys = {
    "ed": ed25519.Ed25519PrivateKey.generate(),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
    "pss": rsa.generate_private_key(65537, 3072),
    "short": rsa.generate_private_key(65537, 1024),
}
algorithm = {"ed": OKPAlgorithm, "p256": ECAlgorithm, "p384": ECAlgorithm}


def jwk(name, **more):
    public = keys[name].public_key()
    made = algorithm.get(name, RSAAlgorithm).to_jwk(public, as_dict=True)
    return {k: v for k, v in made.items() if k != "key_ops"} | {"kid": name, "use": "sig"} | more


def token(name, alg, **headers):
    return jwt.encode(CLAIMS, keys[name], algorithm=alg, headers={"kid": name} | headers)


(HERE / "keys.json").write_text(json.dumps({"keys": [
    # The RSA key without an algorithm is one for RS256 alone.
    jwk("ed"), jwk("p256"), jwk("p384", alg="ES384"), jwk("rsa"), jwk("pss", alg="PS256"),
    jwk("short", alg="RS256"), {"kty": "oct", "kid": "oct", "k": "AAAA", "alg": "HS256"},
]}, indent=1) + "\n")
(HERE / "tokens.json").write_text(json.dumps({
    "good": {"ed": token("ed", "EdDSA"), "p256": token("p256", "ES256"),
             "rsa": token("rsa", "RS256"), "pss": token("pss", "PS256")},
    "bad": {
        "rsa-key-with-pss": token("rsa", "PS256"),
        "pss-key-with-pkcs1": token("pss", "RS256"),
        "sha512": token("rsa", "RS512"),
        "p384": token("p384", "ES384"),
        "key-too-short": token("short", "RS256"),
        "kid-of-another": token("ed", "EdDSA", kid="p256"),
        "kid-of-another-rsa": token("rsa", "RS256", kid="pss"),
        "kid-unknown": token("ed", "EdDSA", kid="nobody"),
    },
}, indent=1) + "\n")
