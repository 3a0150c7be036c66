"""A message to a webhook: as JSON with its facts, or as Slack wants it. The address is a secret:
no sentence has it."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Mapping
from typing import Any

from retainer.errors import RetainerError, WrongUsage

SECONDS = 10.0
"""So long a webhook may take; nothing waits for it longer."""
_SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")


def check_address(url: str) -> None:
    """Raises WrongUsage for what no message should be sent to: no https, but on this machine."""
    import httpx

    try:
        told = httpx.URL(_bare(url))
    except Exception:  # whatever it stumbles over may hold the address
        raise WrongUsage("the webhook is no address", hint=_HINT) from None
    if told.scheme == "https" and told.host:
        return
    if told.scheme == "http" and _is_this_machine(told.host):
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
    is_slack = url.startswith("slack+") or httpx.URL(url).host in _SLACK_HOSTS
    body = {"text": _for_slack(text)} if is_slack else {"text": text, **facts}
    answered: list[int | str] = []

    def post() -> None:
        try:
            with httpx.stream("POST", _bare(url), json=body, timeout=SECONDS) as answer:
                answered.append(answer.status_code)
        except Exception as error:  # its words may hold the address
            answered.append(type(error).__name__)

    # one that drips its answer is given up too: a timeout of httpx's is for each read
    sender = threading.Thread(target=post, daemon=True)
    sender.start()
    sender.join(SECONDS)
    told = answered[0] if answered else f"no answer within {SECONDS:.0f} s"
    if isinstance(told, str):
        raise RetainerError(f"the webhook could not be told: {told}")
    if not 200 <= told < 300:
        raise RetainerError(f"the webhook was told, and answered {told}")
