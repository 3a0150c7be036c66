"""A message to a webhook: as JSON with its facts, or as Slack wants it. The address is a secret:
no sentence has it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from retainer.errors import RetainerError, WrongUsage

SECONDS = 10.0
"""So long a webhook may take; nothing waits for it longer."""
_SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")


def check_address(url: str) -> None:
    """Raises WrongUsage for what no message should be sent to: no https, but on this machine."""
    try:
        parts = urlsplit(_bare(url))
        host = parts.hostname or ""
    except ValueError:
        raise WrongUsage("the webhook is no address", hint=_HINT) from None
    if parts.scheme == "https" and host:
        return
    if parts.scheme == "http" and _is_this_machine(host):
        return
    raise WrongUsage("the webhook is no https address", hint=_HINT)


_HINT = "RETAINER_WEBHOOK=https://…, or slack+https://… for another server that speaks as Slack"


def _bare(url: str) -> str:
    return url.removeprefix("slack+")


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _for_slack(text: str) -> str:
    """What would be a link, or would call people, is text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def send(url: str, text: str, facts: Mapping[str, Any]) -> None:
    """Send a message. `text`: what a person reads; `facts`: what a program may want.

    Raises RetainerError where it was not taken.
    """
    import httpx

    check_address(url)
    is_slack = url.startswith("slack+") or urlsplit(url).hostname in _SLACK_HOSTS
    body = {"text": _for_slack(text)} if is_slack else {"text": text, **facts}
    try:
        answer = httpx.post(_bare(url), json=body, timeout=SECONDS, follow_redirects=False)
    except httpx.HTTPError as error:
        raise RetainerError(f"the webhook could not be told: {type(error).__name__}") from None
    if not answer.is_success:
        raise RetainerError(f"the webhook was told, and answered {answer.status_code}")
