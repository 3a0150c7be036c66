"""What boto3 is best at: whose credentials are used and when they are renewed, at which address a
bucket is asked, and the calls that are rare (locks, restores)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    CredentialRetrievalError,
    InvalidConfigError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from retainer.errors import CredentialsRefused, RetainerError, StoreFailed
from retainer.model.setting import Lock, Store
from retainer.stores.s3_answers import refusal_of
from retainer.stores.s3_calls import S3Calls
from retainer.stores.sentences import TRY_AGAIN
from retainer.stores.sigv4 import encoded_path, encoded_query, signed
from retainer.stores.verdict import Refusal, Verdict
from retainer.stores.wire import Answer, Request

_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOError,
    ProfileNotFound,
    ConfigNotFound,
    ConfigParseError,
    InvalidConfigError,
)
_WRONG_REGION = (NoRegionError, InvalidRegionError)
_RESTORED_DAYS = 7
_CLIENT = f"retainer/{version('retainer')}"


@cache
def session(
    profile: str | None = None, role_arn: str | None = None, region: str | None = None
) -> boto3.Session:
    """Shared by all stores of the same credentials, so that these are looked up and renewed once.
    With a role, it is assumed with them for an hour at a time."""
    plain = boto3.Session(profile_name=profile)
    if role_arn is None:
        return plain
    source = plain.get_credentials()
    if source is None:
        raise NoCredentialsError
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=partial(plain._session.create_client, region_name=region),
        source_credentials=source,
        role_arn=role_arn,
        extra_args={"RoleSessionName": "retainer"},
    )
    assumed = botocore.session.Session(profile=profile)
    credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
    assumed._credentials = credentials  # type: ignore[attr-defined]
    return boto3.Session(botocore_session=assumed)


_DOTS = {".", ".."}


@dataclass(frozen=True, slots=True)
class _To:
    """Where a bucket is asked."""

    origin: str
    host: str
    region: str


class S3Account:
    """One bucket as these credentials reach it: a `Dialer` for the wire, and the rare calls.

    Raises CredentialsRefused where there are none, StoreFailed where no address can be made.
    """

    cloud = "S3"
    whose = "`aws sts get-caller-identity` says whose they are"

    def __init__(self, store: Store) -> None:
        self.store = store
        self._moving = threading.Lock()
        try:
            self._session = session(store.profile, store.role_arn, store.region)
            found = self._session.get_credentials()
            if found is None:
                raise NoCredentialsError
            self._credentials = found
            self._keys()
            self._dial(store.region)
        except (BotoCoreError, ClientError, ValueError) as error:
            if isinstance(error, ValueError) and not isinstance(error, BotoCoreError):
                hint = "look at its `endpoint` and `region`"
                raise StoreFailed(f"reach {store.name}: {error}", hint=hint) from None
            raise failure_of(store.name, "reach", "", error) from None

    def _dial(self, region: str | None) -> None:
        """Find out the address of the bucket, as boto3 resolves it."""
        self.client = self._connected(region)
        address = self.client.generate_presigned_url(
            "head_bucket", Params={"Bucket": self.store.bucket}
        )
        parts = urlsplit(address)
        known = str(self.client.meta.region_name or "us-east-1")
        self._to = _To(f"{parts.scheme}://{parts.netloc}", parts.netloc, known)
        self.calls = S3Calls(self.store, parts.path.rstrip("/"))

    @property
    def host(self) -> str:
        return self._to.host

    @property
    def region(self) -> str:
        return self._to.region

    def moves_to(self, region: str, asked: str) -> bool:
        """Ask in another region from now on, where AWS says that the bucket is there; whether that
        is another one than was asked."""
        if self.store.endpoint or "/" in region or region == asked:
            return False
        with self._moving:
            if region != self.region:
                self._dial(region)
        return True

    def _connected(self, region: str | None) -> Any:
        store = self.store
        usual = "path" if store.endpoint and store.scheme == "s3" else "auto"
        return self._session.client(
            "s3",
            region_name=region or ("us-east-1" if store.endpoint else None),
            endpoint_url=store.endpoint,
            config=Config(
                signature_version="s3v4",
                connect_timeout=10,
                read_timeout=60,
                retries={"mode": "standard", "max_attempts": 5},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                user_agent=_CLIENT,
                s3={"addressing_style": store.addressing or usual},  # type: ignore[arg-type]
            ),
        )

    def _keys(self) -> Any:
        try:
            return self._credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:
            raise failure_of(self.store.name, "reach", "", error) from None

    # ── a Dialer ────────────────────────────────────────────────────────────────────────────────

    def address(self, request: Request) -> tuple[str, dict[str, str]]:
        """Raises StoreFailed for a key that would become another one on its way: HTTP resolves `.`
        and `..` between slashes."""
        if not _DOTS.isdisjoint(request.path.split("/")):
            raise StoreFailed(
                f"ask {self.store.name}: a key with `.` or `..` between slashes cannot be sent",
                hint="look at it, and give it another name",
            )
        to = self._to
        path, query = encoded_path(request.path), encoded_query(request.query)
        headers = {"user-agent": _CLIENT, "accept-encoding": "identity", **request.headers}
        sent = signed(
            request.method,
            to.host,
            path,
            query,
            headers,
            self._keys(),
            to.region,
            datetime.now(UTC),
        )
        return f"{to.origin}{path}{'?' + query if query else ''}", sent

    def renewed(self, since: float) -> bool:
        return False  # botocore renews them well before they end

    def refusal_of(self, answer: Answer) -> Refusal | None:
        return refusal_of(answer)

    def hint_for(self, told: Refusal) -> str | None:
        match told.code:
            case "RequestTimeTooSkewed":
                return "this machine's clock is off"
            case "SecondLevelDomainForbidden":
                return "set `addressing: virtual` for it"
        return None

    # ── rare calls ──────────────────────────────────────────────────────────────────────────────

    def may_see_locks(self, key: str) -> bool | None:
        """Whether HEAD would tell of a lock: it leaves out what the caller has no right to see.
        None: it cannot be told at this moment."""
        allowed = True
        for ask in (self.client.get_object_retention, self.client.get_object_legal_hold):
            try:
                ask(Bucket=self.store.bucket, Key=self.store.prefix + key)
            except ClientError as error:
                told = refusal_in(error)
                if told.status >= 500:
                    return None
                allowed = allowed and told.status in (400, 404) and told.code != "AccessDenied"
            except BotoCoreError:
                return None
        return allowed

    def retain(
        self, key: str, until: datetime, mode: Lock | None = None, version: str | None = None
    ) -> None:
        """Lock what lies there now, or (`version`) just this one; in the mode that the settings
        name, unless it has one already. Raises StoreFailed."""
        wanted = (mode or self.store.lock or "governance").upper()
        which: dict[str, Any] = {"VersionId": version} if version else {}
        self._rare(
            "lock",
            key,
            lambda: self.client.put_object_retention(
                Bucket=self.store.bucket,
                Key=self.store.prefix + key,
                Retention={"Mode": wanted, "RetainUntilDate": until},
                **which,
            ),
        )

    def restore(self, key: str, storage_class: str | None) -> None:
        """From INTELLIGENT_TIERING for good, from the others for some days. Raises StoreFailed.

        Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_RestoreObject.html (`Days`).
        """
        how: dict[str, Any] = {"GlacierJobParameters": {"Tier": "Bulk"}}
        if storage_class != "INTELLIGENT_TIERING":
            how["Days"] = _RESTORED_DAYS
        place = {"Bucket": self.store.bucket, "Key": self.store.prefix + key}
        self._rare(
            "restore",
            key,
            lambda: self.client.restore_object(**place, RestoreRequest=how),
            well="RestoreAlreadyInProgress",
        )

    def _rare(self, verb: str, key: str, call: Callable[[], Any], well: str = "") -> None:
        try:
            call()
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and well and refusal_in(error).code == well:
                return
            raise failure_of(self.store.name, verb, key, error) from None


def refusal_in(error: ClientError) -> Refusal:
    """An error of boto3 as one of the wire."""
    told, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    status = int(meta.get("HTTPStatusCode", 0))
    code, message = str(told.get("Code", "")), str(told.get("Message", ""))
    body = f"<Error><Code>{code}</Code></Error>".encode()
    found = refusal_of(Answer(status, meta.get("HTTPHeaders", {}), body))
    return Refusal(found.verdict if found else Verdict.OTHER, status, code, message)


def failure_of(store: str, verb: str, key: str, error: Exception) -> RetainerError:
    """A failure of boto3 as a sentence."""
    where = f"{verb} {store}:{key}" if key else f"{verb} {store}"
    if isinstance(error, ClientError):
        told = refusal_in(error)
        if error.operation_name == "AssumeRole":
            said = f"{where}: the role cannot be assumed ({told.code})"
            return CredentialsRefused(said, hint="look at its `role_arn`", store=store)
        return StoreFailed(f"{where}: S3 answered {told.status} {told.code}")
    if isinstance(error, _NO_CREDENTIALS):
        return CredentialsRefused(
            f"{where}: S3 refused the credentials, or there are none ({type(error).__name__})",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `profile:` of this store",
            store=store,
        )
    if isinstance(error, _WRONG_REGION):
        return StoreFailed(
            f"{where}: no region that S3 knows is named",
            hint="set `region` for it in retainer.yaml",
        )
    return StoreFailed(f"{where}: {type(error).__name__}", hint=TRY_AGAIN)


def regions() -> frozenset[str]:
    """The regions of S3, of every partition, as the installed botocore knows them."""
    known = boto3.Session()
    return frozenset(
        region
        for partition in known.get_available_partitions()
        for region in known.get_available_regions("s3", partition_name=partition)
    )
