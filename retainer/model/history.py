"""What the record says: of one recording, of one run, or of a span of time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RunTold:
    """A run: of which plan (its fingerprint) or of what, who applied it where, by which ticket and
    approvals, what was lifted. `ended` None: it did not tell its end."""

    run: str
    plan: str
    what: str
    began: datetime
    ended: datetime | None
    user: str
    host: str
    ticket: str
    approved_by: tuple[str, ...]
    commit: str
    dirty: bool
    lifted: tuple[str, ...]
    copied: int
    locked: int
    deleted: int
    failed: int
    skipped: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that was done, or was not, with a recording in a store. `bytes` in bytes;
    `checksum`: of what was copied, with its kind; moments of the policy as RFC 3339."""

    at: datetime
    event: str
    asset_id: str
    store: str
    run: str
    plan: str
    keys: tuple[str, ...] = ()
    bytes: int | None = None
    rule: str = ""
    rule_at: str = ""
    asked_by: str = ""
    """Of a delete: `rule` or `erasure`."""
    why: str = ""
    kind: str = ""
    created: str = ""
    kept_until: str = ""
    kept_by: str = ""
    due: str = ""
    last_copy: bool | None = None
    witnesses: tuple[str, ...] = ()
    recoverable: str = ""
    versions: int | None = None
    """Of a delete that was for good: so many versions went."""
    locked_until: str = ""
    """Of a copy that was locked longer."""
    act: str = ""
    """Of what failed, was skipped or left: `copy`, `lock` or `delete`."""
    checksum: str = ""
    cause: str = ""
    user: str = ""
    ticket: str = ""
    approved_by: tuple[str, ...] = ()
    commit: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """`about`: whose it is. `record`: where it lies; `lines`: so many were read, with the hash of
    the first and the last."""

    about: str
    record: str
    since: datetime | None
    until: datetime | None
    runs: tuple[RunTold, ...]
    happenings: tuple[Happening, ...]
    lines: int
    first_hash: str
    last_hash: str

    @property
    def deletions(self) -> tuple[Happening, ...]:
        return tuple(each for each in self.happenings if each.event == "deleted")

    @property
    def too_early(self) -> tuple[Happening, ...]:
        """Deletes that the record itself says were made before they were due; an erasure waits
        for no date."""
        return tuple(
            each
            for each in self.deletions
            if each.asked_by != "erasure" and each.due > each.at.strftime(_FORM)
        )


_FORM = "%Y-%m-%dT%H:%M:%SZ"
