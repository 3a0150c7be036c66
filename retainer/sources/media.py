"""The bytes of recordings over HTTP: opened at an address that is asked for anew each time, and
gone on with where they break off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import urljoin, urlsplit

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from retainer.errors import SourceFailed, SourceGone, TooSlow
from retainer.model.address import may_lead
from retainer.patience import Again, Patience, asked_patience, may_pass
from retainer.ports import Body
from retainer.sources.connections import Connections, is_local
from retainer.sources.words import insist, said_in
from retainer.wire import cut_after, is_nobody_there

RESUMES = 3
"""So often in a row a download is gone on with that brings no new byte; then it is given up."""
PIECE_SECONDS = 60.0
"""Within so long a mebibyte must have come; where it has not, the download is gone on with once,
and 64 KiB must come."""
_PIECE = 1 << 20
_SLOW_PIECE = 64 << 10
_REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)

Opened = tuple[BaseHTTPResponse, str]
"""An answer, and the address it came from."""


class Media:
    """Opens bodies. Safe to use from several threads."""

    def __init__(
        self,
        connections: Connections,
        patience: Patience,
        may_be_local: bool,
        hosts: Sequence[str] = (),
    ) -> None:
        """`may_be_local`: bytes may come from a private network, since the API itself is in one.
        `hosts`: patterns of hosts that a recording's parts may lie on, or one in a private network
        by its name."""
        self._connections = connections
        self._patience = patience
        self._may_be_local = may_be_local
        self._hosts = hosts

    def with_patience(self, patience: Patience) -> Media:
        """The same, over the same connections."""
        return Media(self._connections, patience, self._may_be_local, self._hosts)

    def may_lead(self, page: str, address: str) -> bool:
        return may_lead(page, address, self._hosts)

    def body(self, what: str, address: Callable[[], str], *, anywhere: bool) -> Body:
        """Open what lies at an address, which is asked for each time anew since presigned ones end.
        `anywhere`: redirects are followed to any host. Raises SourceGone, SourceFailed."""

        def opened(range_asked: Mapping[str, str]) -> Opened:
            return insist(
                self._patience,
                f"opening {what}",
                lambda: self._once(what, address, range_asked, anywhere=anywhere),
            )

        answer, came_from = opened({})
        length = answer.headers.get("Content-Length", "")
        stored = answer.headers.get("x-goog-stored-content-length", "")
        return Body(
            int(length) if length.isdecimal() else None,
            answer.headers.get("Content-Type", ""),
            self._pieces(what, opened, answer),
            came_from.partition("?")[0],
            _encoding_of(answer),
            int(stored) if stored.isdecimal() and _is_unpacked(answer) else None,
        )

    def has_more(self, what: str, address: Callable[[], str], length: int) -> bool:
        """Whether more than so many bytes lie there: a range behind them tells. Raises
        SourceFailed."""
        asked = {"Range": f"bytes={length}-"}
        answer, _ = insist(
            self._patience,
            f"opening {what}",
            lambda: self._asked(what, address(), asked, anywhere=True),
        )
        answer.close()
        match answer.status:
            case 416:
                return False
            case 200:
                return str(answer.headers.get("Content-Length")) != str(length)
            case 206:
                return True
        raise SourceFailed(f"opening {what}: the server answered {answer.status}")

    def _once(
        self,
        what: str,
        address: Callable[[], str],
        range_asked: Mapping[str, str],
        *,
        anywhere: bool,
    ) -> Opened:
        for fresh in (False, True):
            answer, came_from = self._asked(what, address(), range_asked, anywhere=anywhere)
            if answer.status == 403 and not fresh:
                answer.close()
                continue
            break
        if _is_unpacked(answer):
            answer.close()
            headers = {**range_asked, "Accept-Encoding": "gzip"}
            answer, came_from = self._asked(what, address(), headers, anywhere=anywhere)
        if answer.status == 200 or (answer.status == 206 and range_asked):
            return answer, came_from
        text = _beginning(answer)
        patience = asked_patience(answer.status, answer.headers, lambda: text)
        answer.close()
        said = f"the server answered {answer.status}" + (
            f" ({told})" if (told := said_in(text)) else ""
        )
        if answer.status in (404, 410):
            raise SourceGone(f"{what} is gone from 100ms ({answer.status})")
        if may_pass(answer.status):
            raise Again(said, patience)
        raise SourceFailed(f"opening {what}: {said}", hint=_hint_for(answer))

    def _asked(
        self, what: str, address: str, headers: Mapping[str, str], *, anywhere: bool
    ) -> Opened:
        """One request, and those that it is sent on to."""
        useless = f"opening {what}: its presigned URL is of no use"
        for _ in range(_REDIRECTS + 1):
            try:
                self._may_be_asked(what, address)
                answer = self._connections.get(address, {"Accept-Encoding": "identity", **headers})
            except ValueError:
                raise SourceFailed(f"{useless} (no http address)") from None
            except HTTPError as error:
                said = f"the connection failed ({type(error).__name__})"
                raise Again(said, nobody=is_nobody_there(error)) from None
            moved = answer.headers.get("Location") if answer.status in _MOVED else None
            if not moved:
                return answer, address
            answer.close()
            try:
                leads = urljoin(address, moved)
            except ValueError:
                raise SourceFailed(f"{useless} (a redirect to no address)") from None
            if not anywhere and not self.may_lead(address, leads):
                host = urlsplit(leads).hostname or ""
                raise SourceFailed(
                    f"opening {what}: a redirect leads to another host ({host})",
                    hint="is it one of `source.media_hosts`?",
                )
            if urlsplit(address).scheme == "https" and urlsplit(leads).scheme != "https":
                raise SourceFailed(
                    f"opening {what}: a redirect leads from https to {urlsplit(leads).scheme}, "
                    "which is not followed"
                )
            address = leads
        raise SourceFailed(f"{useless} (TooManyRedirects)")

    def _may_be_asked(self, what: str, address: str) -> None:
        """Raises SourceFailed for an address in a private network, on this machine or of the
        cloud's own services."""
        if (
            not self._may_be_local
            and (urlsplit(address).hostname or "") not in self._hosts
            and not self._connections.goes_through_a_proxy(address)
            and is_local(address)
        ):
            host = urlsplit(address).hostname
            raise SourceFailed(
                f"opening {what}: it leads to {host}, which is no public address",
                hint="who answers in place of 100ms?",
            )

    def _pieces(
        self, what: str, opened: Callable[[Mapping[str, str]], Opened], answer: BaseHTTPResponse
    ) -> Iterator[bytes]:
        """The body, to its end. Where it breaks off or stalls it goes on from there, if the server
        shows that it is still the same file."""
        length, etag = answer.headers.get("Content-Length", ""), answer.headers.get("ETag", "")
        came, tries, at_once = 0, 0, _PIECE
        while True:
            slow = False
            try:
                while True:
                    with cut_after(answer, PIECE_SECONDS) as cut:
                        try:
                            piece = answer.read(at_once)
                        except HTTPError:
                            slow = cut.is_set()
                            raise
                    if not piece:
                        return
                    came, tries = came + len(piece), 0
                    yield piece
            except HTTPError as error:
                if slow and at_once == _SLOW_PIECE:
                    raise TooSlow(
                        f"reading {what}: after {came} bytes it brought less than "
                        f"{_SLOW_PIECE >> 10} KiB in {PIECE_SECONDS:.0f} s",
                        hint="run it again later",
                    ) from None
                at_once = _SLOW_PIECE if slow else at_once
                broke = f"reading {what}: it broke off after {came} bytes ({type(error).__name__})"
            finally:
                answer.close()
            tries += 1
            given_up = TooSlow if slow else SourceFailed
            if not length.isdecimal() or not etag.startswith('"'):
                raise given_up(
                    f"{broke}, and the server names nothing to go on from", hint="run it again"
                )
            if tries > RESUMES:
                raise given_up(f"{broke}, {RESUMES} times in a row", hint="run it again later")
            self._patience.pause(f"{broke}; going on from there", tries)
            answer, _ = opened({"Range": f"bytes={came}-", "If-Range": etag})
            if (
                answer.status != 206
                or answer.headers.get("Content-Range") != f"bytes {came}-{int(length) - 1}/{length}"
            ):
                answer.close()
                raise given_up(
                    f"{broke}, and what the server has now is another file, or it cannot go on in "
                    "the middle",
                    hint="run it again",
                )


def _hint_for(answer: BaseHTTPResponse) -> str | None:
    region = answer.headers.get("x-amz-bucket-region")
    if answer.status in _MOVED and region:
        return f"100ms signs for another region than the bucket's ({region}): declare it as a store"
    if answer.status == 403:
        return "100ms may only have the right to write to that bucket: declare it as a store"
    return None


def _encoding_of(answer: BaseHTTPResponse) -> str:
    encoding = str(answer.headers.get("Content-Encoding", "")).strip().lower()
    return "" if encoding == "identity" else encoding


def _is_unpacked(answer: BaseHTTPResponse) -> bool:
    """Whether the server unpacks on its way what lies there as gzip, as GCS does for whoever does
    not take gzip (https://cloud.google.com/storage/docs/transcoding)."""
    stored = answer.headers.get("x-goog-stored-content-encoding", "")
    return answer.status == 200 and stored == "gzip" and not _encoding_of(answer)


def _beginning(answer: BaseHTTPResponse) -> str:
    try:
        with cut_after(answer, PIECE_SECONDS):
            return answer.read(2000).decode(errors="replace")
    except HTTPError:
        return ""
