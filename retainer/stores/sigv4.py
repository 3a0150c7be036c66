"""AWS Signature Version 4 for S3, with a payload that is not signed.

What is sent is protected by its checksum and, on the way, by TLS.
Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote

UNSIGNED = "UNSIGNED-PAYLOAD"
_NOT_SIGNED = ("user-agent", "accept-encoding")
"""What a proxy on the way may change."""


class Keys(Protocol):
    """Credentials as botocore gives them, at one moment."""

    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


def encoded_path(path: str) -> str:
    """A path as S3 signs it and as it is sent: each byte but letters, digits and `-._~/` as %XX."""
    return quote(path, safe="/~")


def encoded_query(query: Iterable[tuple[str, str]]) -> str:
    """A query as S3 signs it and as it is sent, in the order of its encoded names and values."""
    encoded = ((quote(name, safe="~"), quote(value, safe="~")) for name, value in query)
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))


def signed(
    method: str,
    host: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    keys: Keys,
    region: str,
    now: datetime,
) -> dict[str, str]:
    """The headers with their signature. Their names are in small letters; `path` and `query` are
    encoded; `now` in UTC."""
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    sent = {**headers, "host": host, "x-amz-content-sha256": UNSIGNED, "x-amz-date": moment}
    if keys.token:
        sent["x-amz-security-token"] = keys.token
    names = sorted(name for name in sent if name not in _NOT_SIGNED)
    lines = "".join(f"{name}:{' '.join(sent[name].split())}\n" for name in names)
    listed = ";".join(names)
    canonical = f"{method}\n{path}\n{query}\n{lines}\n{listed}\n{UNSIGNED}"
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
    key = _signing_key(keys.secret_key, moment[:8], region)
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    sent["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.access_key}/{scope}, "
        f"SignedHeaders={listed}, Signature={signature}"
    )
    return sent


@lru_cache(maxsize=16)
def _signing_key(secret: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
