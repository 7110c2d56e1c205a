"""Prints a token that ends after SECONDS, signed by HS256: SECRET USER SECONDS."""

import base64
import hashlib
import hmac
import json
import sys
import time

secret, user, seconds = sys.argv[1:]


def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


claims = {"sub": user, "exp": int(time.time()) + int(seconds)}
parts = [json.dumps(it).encode() for it in ({"alg": "HS256", "typ": "JWT"}, claims)]
signed = b".".join(map(part, parts))
signature = hmac.digest(secret.encode(), signed, hashlib.sha256)
print((signed + b"." + part(signature)).decode())
