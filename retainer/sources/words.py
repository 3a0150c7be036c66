"""What a server says of an error, in its own words, less what may be nobody's business; and what is
said of one that goes on failing."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import TypeVar

from retainer.errors import SourceFailed
from retainer.patience import Again, Patience

Answer = TypeVar("Answer")
LONGEST = 200
_PRIVATE = re.compile(
    r"(?i)\b(?:https?(?::|&)|arn:|eyJ)\S+|\bBearer\s+\S+|\S+@\S+"
    r"|\b(?:x-amz-|x-goog-|signature|sig|token|credential|key|password|secret)[\w-]*=\S+"
    r"|\b(?:name|room|user|peer)\s*[:=]?\s*['\"“][^'\"”]*['\"”]"
    r"|\b(?:named|name[:=]|user:)\s(?!arn:).*"
)
"""Addresses can be signed, and an ARN, an address of mail or what a room is called names a
person."""


def said_in(body: str) -> str:
    """The code and message of an error as S3, GCS, OSS and the 100ms API write them, on one line;
    empty where there is none."""
    told = html.unescape(_found(body))
    return " ".join(_PRIVATE.sub("…", told).split())[:LONGEST].strip()


def insist(
    patience: Patience,
    what: str,
    call: Callable[[], Answer],
    aside: Callable[[], float] = lambda: 0.0,
) -> Answer:
    """Make a call until it does not raise Again (`aside`: as `try_again`). Raises SourceFailed when
    that takes too long."""
    try:
        return patience.try_again(what, call, aside)
    except Again as error:
        said = f"{what}: {error}{error.why_no_more}"
        raise SourceFailed(said, hint="run it again later") from None


def _found(body: str) -> str:
    text = body.lstrip("\ufeff \t\r\n")
    if text.startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return ""
        told = value.get("error") if isinstance(value.get("error"), dict) else value
        details = told.get("details")
        words = [told.get("message"), *(details if isinstance(details, list) else [])]
        return "; ".join(word for word in words if isinstance(word, str) and word)
    if text.startswith("<"):
        words = [
            found[1]
            for name in ("Code", "Message")
            if (found := re.search(rf"<{name}>([^<]*)</{name}>", text))
        ]
        return ": ".join(word for word in words if word)
    return ""
