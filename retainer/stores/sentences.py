"""Why a call was not done, as a sentence: what, where, and what next."""

from __future__ import annotations

from retainer.errors import Archived, CredentialsRefused, RetainerError, StoreFailed, StoreRefused
from retainer.stores.calls import Account
from retainer.stores.verdict import Refusal, Verdict

TRY_AGAIN = "the connection failed; run it again"
_SIGNED = ("x-amz-", "x-goog-", "upload_id", "uploadid=", "access_token", "signature=")
NO_RIGHT = "the credentials lack a right there"


def failure_of(store: str, account: Account, where: str, told: Refusal) -> RetainerError:
    """A refusal as an error. `where`: what was asked, and of which object."""
    said = f"{where}: {account.cloud} answered {told.status}{f' {told.code}' if told.code else ''}"
    words = _in_its_words(told)
    if hint := account.hint_for(told):
        return StoreFailed(said, hint=hint + words)
    match told.verdict:
        case Verdict.CREDENTIALS:
            said = f"{where}: {account.cloud} refused the credentials ({told.code or told.status})"
            return CredentialsRefused(said, hint=account.whose, store=store)
        case Verdict.ELSEWHERE:
            return _leads_elsewhere(store, said, told)
        case Verdict.ARCHIVED:
            hint = "it is archived: `retainer apply --restore` asks for it"
            return Archived(said, hint=hint, store=store)
        case Verdict.REFUSED | Verdict.LOCKED:
            return StoreRefused(said, hint=NO_RIGHT + words, store=store)
        case _:
            return StoreFailed(said, hint=words.removeprefix("; ") or None)


def _leads_elsewhere(store: str, said: str, told: Refusal) -> StoreFailed:
    if told.leads_to and "/" not in told.leads_to:
        hint = f"set `region: {told.leads_to}` for it: that is where the bucket is"
        return StoreFailed(f"{said}, the region {told.leads_to}", hint=hint)
    leads = told.leads_to or "an address that it does not name"
    return StoreFailed(
        f"reach {store}: the server answered {told.status} and leads to {leads}",
        hint="write the address itself as its `endpoint`",
    )


def _in_its_words(told: Refusal) -> str:
    """What the server says itself, without addresses that may be signed."""
    words = " ".join(told.message.split())[:200]
    signed = any(each in words.lower() for each in _SIGNED)
    return f"; it says: {words}" if words and not signed else ""
