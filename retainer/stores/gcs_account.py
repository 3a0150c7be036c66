"""What Google's own libraries are best at: whose credentials are used and when they are renewed,
and the calls that are rare (retention)."""

from __future__ import annotations

import logging
import os
import threading
import time
from datetime import datetime
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import google.auth
from google.auth import impersonated_credentials
from google.auth.credentials import AnonymousCredentials, Credentials, TokenState
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request as Renewal

from retainer.errors import CredentialsRefused, StoreFailed, StoreRefused
from retainer.model.setting import Store
from retainer.ports import Seen
from retainer.stores.gcs_answers import refusal_of
from retainer.stores.gcs_calls import GcsCalls, retention_mode
from retainer.stores.sentences import NO_RIGHT, TRY_AGAIN
from retainer.stores.sigv4 import encoded_query
from retainer.stores.verdict import Refusal, Verdict
from retainer.stores.wire import Answer, Request

logging.getLogger("google.auth").setLevel(logging.ERROR)  # a project is not needed

_GOOGLE = "https://storage.googleapis.com"
_SCOPES = ("https://www.googleapis.com/auth/devstorage.full_control",)
_CLIENT = f"retainer/{version('retainer')}"
_YOUNG = 60.0
"""A token that is refused at an age of so many seconds is refused for another reason than its
age."""


class GcsAccount:
    """One bucket as these credentials reach it: an `Account` for a store, and the rare calls.

    Raises CredentialsRefused where there are none.
    """

    cloud = "GCS"
    whose = "see `gcloud auth list`"
    region = ""

    def __init__(self, store: Store) -> None:
        self.store = store
        emulated = os.environ.get("STORAGE_EMULATOR_HOST")
        self._origin = (store.endpoint or emulated or _GOOGLE).rstrip("/")
        if "://" not in self._origin:
            self._origin = f"http://{self._origin}"
        self._renewing = threading.Lock()
        self._own_client: Any = None
        self._renewed_at = -_YOUNG
        self._project: str | None = None
        self._credentials = self._found(emulated is not None)
        self.calls = GcsCalls(store)

    def _found(self, emulated: bool) -> Credentials | None:
        """Those of the environment, and none for an emulator: what is asked without TLS never gets
        a token."""
        if emulated or self._origin.startswith("http://"):
            return None
        try:
            found, self._project = google.auth.default(scopes=_SCOPES)
            if self.store.impersonate is None:
                return found
            return impersonated_credentials.Credentials(
                source_credentials=found,
                target_principal=self.store.impersonate,
                target_scopes=list(_SCOPES),
            )
        except (GoogleAuthError, OSError, ValueError, AttributeError, TypeError, KeyError):
            raise CredentialsRefused(
                f"reach {self.store.name}: there are no Google credentials",
                hint="run `gcloud auth application-default login`",
                store=self.store.name,
            ) from None

    @property
    def host(self) -> str:
        return urlsplit(self._origin).netloc

    def moves_to(self, region: str, asked: str) -> bool:
        return False

    # ── a Dialer ────────────────────────────────────────────────────────────────────────────────

    def address(self, request: Request) -> tuple[str, dict[str, str]]:
        """Raises CredentialsRefused where there is no token, ConnectionError if that may pass."""
        query = encoded_query(request.query)
        address = f"{self._origin}{request.path}{'?' + query if query else ''}"
        headers = {"user-agent": _CLIENT, "accept-encoding": "identity", **request.headers}
        try:
            if self._credentials is not None:
                with self._renewing:
                    if self._credentials.token_state is not TokenState.FRESH:
                        self._renew(self._credentials)
                    self._credentials.apply(headers)
        except GoogleAuthError as error:
            if error.retryable or isinstance(error, TransportError):
                raise ConnectionError(type(error).__name__) from None  # the wire tries it again
            raise self._no_token() from None
        return address, headers

    def _renew(self, credentials: Credentials) -> None:
        credentials.refresh(Renewal())
        self._renewed_at = time.monotonic()

    def renewed(self, since: float) -> bool:
        """A token can end before the time that it was given with (a clock that is behind, a key
        that was taken back), so one that is refused is renewed once, as Google's client does."""
        if self._credentials is None:
            return False
        with self._renewing:
            if self._renewed_at <= since and time.monotonic() - self._renewed_at >= _YOUNG:
                try:
                    self._renew(self._credentials)
                except GoogleAuthError:
                    return False
            return self._renewed_at > since

    def _no_token(self) -> CredentialsRefused:
        where = f"reach {self.store.name}"
        said = f"{where}: Google refused the credentials"
        return CredentialsRefused(said, hint=self.whose, store=self.store.name)

    def refusal_of(self, answer: Answer) -> Refusal | None:
        return refusal_of(answer)

    def hint_for(self, told: Refusal) -> str | None:
        return None

    def _client(self) -> Any:
        """Google's own, made once: it keeps its connections."""
        from google.cloud import storage

        with self._renewing:
            if self._own_client is None:
                client: Any = storage.Client(
                    project=self._project or "none",  # it is of no account for an object
                    credentials=self._credentials or AnonymousCredentials(),
                    client_options={"api_endpoint": self._origin},
                )
                # google-cloud-storage 3.17.1 else asks for the bucket, unasked and in the
                # background: a right that nothing here needs, and a denied call in its audit log.
                client._bucket_metadata_cache = None
                self._own_client = client
        return self._own_client

    # ── rare calls ──────────────────────────────────────────────────────────────────────────────

    def retain(self, seen: Seen, until: datetime) -> None:
        """Raises StoreFailed."""
        from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError

        where = f"lock {self.store.name}:{seen.key}"
        try:
            blob: Any = (
                self._client()
                .bucket(self.store.bucket)
                .get_blob(self.store.prefix + seen.key, generation=int(seen.version))
            )
            if blob is None:
                raise StoreFailed(f"{where}: it changed since it was seen")
            blob.retention.mode = blob.retention.mode or retention_mode(self.store)
            blob.retention.retain_until_time = until
            blob.patch(if_metageneration_match=blob.metageneration)
        except GoogleAPICallError as error:
            told = refusal_of(Answer(int(error.code or 0), {}, b""))
            said = f"{where}: GCS answered {error.code}"
            if told is not None and told.verdict is Verdict.REFUSED:
                raise StoreRefused(said, hint=NO_RIGHT, store=self.store.name) from None
            raise StoreFailed(said) from None
        except (GoogleAPIError, GoogleAuthError, OSError) as error:
            raise StoreFailed(f"{where}: {type(error).__name__}", hint=TRY_AGAIN) from None
