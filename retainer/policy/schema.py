"""What may stand in the YAML files, as pydantic models; `retainer schema` prints the JSON Schema
made from them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from retainer.model.period import Period, parse_period
from retainer.model.rule import ASSET_TYPES, STATUSES
from retainer.model.setting import CALLS_AT_ONCE, DEFAULT_LAYOUT, MEDIA_HOSTS
from retainer.policy.load import Plain, resolved


def _period(value: Any) -> Period:
    if not isinstance(value, str) or value == "":
        raise PydanticCustomError("P208", "a period is needed here, such as 30d")
    try:
        return parse_period(str(value))
    except ValueError as error:
        raise PydanticCustomError("P208", "{text}", {"text": f"`{value}`: {error}"}) from None


def _text(value: Any) -> Any:
    """Any scalar is text here, `no` and `007` as they were written; only nothing is not."""
    return None if isinstance(value, Plain) and resolved(value) is None else value


def _number(value: Any) -> Any:
    number = resolved(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise PydanticCustomError("P103", "a number is needed here")
    return number


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "PB": 10**15,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
    "PIB": 2**50,
}


def _bytes(value: Any) -> int:
    found = re.fullmatch(r"([0-9]{1,30})\s*([A-Za-z]*)", str(value))
    if not found or found[2].upper() not in _UNITS:
        raise PydanticCustomError(
            "S306", "{text}", {"text": f"`{value}` is not a size; write for example 100GB"}
        )
    return int(found[1]) * _UNITS[found[2].upper()]


def _number_of_bytes(value: Any) -> Any:
    number = resolved(value)
    if isinstance(number, int | float) and not isinstance(number, bool):
        return number
    try:
        return _bytes(value)
    except PydanticCustomError:
        raise PydanticCustomError(
            "P103", "a number of bytes is needed here, such as 500000 or 10GB"
        ) from None


def _one_or_many(schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]})


_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_PERIOD_PATTERN = r"^([0-9]+(h|d|w|mo|y)|forever|P[0-9TYMWDHS]+)$"

Text = Annotated[str, BeforeValidator(_text)]
Id = Annotated[
    str,
    BeforeValidator(_text),
    StringConstraints(pattern=_ID_PATTERN),
    WithJsonSchema({"type": "string", "pattern": _ID_PATTERN}),
]
PeriodText = Annotated[
    Period,
    BeforeValidator(_period),
    WithJsonSchema(
        {"type": "string", "pattern": _PERIOD_PATTERN, "examples": ["30d", "6mo", "7y", "forever"]}
    ),
]
Size = Annotated[
    int,
    BeforeValidator(_bytes),
    WithJsonSchema({"type": ["integer", "string"], "examples": ["100GB"]}),
]
Number = Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[
    float,
    BeforeValidator(_number_of_bytes),
    Field(ge=0, allow_inf_nan=False),
    WithJsonSchema({"type": ["number", "string"], "examples": ["10GB"]}),
]
WholeNumber = Annotated[int, BeforeValidator(_number), Field(ge=0)]
Texts = Annotated[
    list[Text], BeforeValidator(_listed), Field(min_length=1), _one_or_many({"type": "string"})
]
Types = Annotated[
    list[Text],
    BeforeValidator(_listed),
    Field(min_length=1),
    _one_or_many({"type": "string", "examples": list(ASSET_TYPES)}),
]
Statuses = Annotated[
    list[Text],
    BeforeValidator(_listed),
    Field(min_length=1),
    _one_or_many({"type": "string", "examples": list(STATUSES)}),
]
Version = Annotated[Literal[1], BeforeValidator(_number)]


class Strict(BaseModel):
    # Built when first used: most models stand only inside another one.
    model_config = ConfigDict(extra="forbid", populate_by_name=False, frozen=True, defer_build=True)


def _said(description: str, example: object, default: Any = ..., **more: Any) -> Any:
    """A key as the JSON Schema and docs/reference tell of it: what it says, and one value that it
    may have, which a test has checked."""
    return Field(default, description=description, examples=[example], **more)


class Range(Strict):
    min: Number | None = _said("included", 60, None)
    max: Number | None = _said("included", 7200, None)


class SizeRange(Range):
    min: Bytes | None = _said("included; bytes, or with a unit such as 10GB", "10MB", None)
    max: Bytes | None = _said("included; bytes, or with a unit such as 10GB", "10GB", None)


class CreatedRange(Strict):
    after: Text | None = _said(
        "a date (the start of that day in `timezone`) or RFC 3339; included", "2026-01-01", None
    )
    before: Text | None = _said(
        "a date or RFC 3339; not included", "2027-01-01T00:00:00+01:00", None
    )


UNSEEN: Final = "\0"
"""What begins so in the place of a mistake stands in no file: it tells which kind of value it was
read as."""
RangeOrTexts = Annotated[
    Annotated[Range, Tag(f"{UNSEEN}range")] | Annotated[Texts, Tag(f"{UNSEEN}texts")],
    Discriminator(lambda value: f"{UNSEEN}{'range' if isinstance(value, dict) else 'texts'}"),
]
YesOrTexts = Annotated[
    Annotated[bool, BeforeValidator(resolved), Tag(f"{UNSEEN}yes")]
    | Annotated[Texts, Tag(f"{UNSEEN}texts")],
    Discriminator(
        lambda value: f"{UNSEEN}{'yes' if isinstance(resolved(value), bool) else 'texts'}"
    ),
]
EVERYTHING: Final = "\0all"
"""The key under which `match: all` reaches its model: no file can spell it."""


def _match(value: Any) -> Any:
    return {EVERYTHING: True} if isinstance(value, str) and value == "all" else value


class MatchMap(Strict):
    """Fields side by side mean "and", a list means "one of"."""

    type: Types | None = _said(
        "the asset type, as 100ms names it", ["room-composite", "chat"], None
    )
    status: Statuses | None = _said("the status that 100ms gives", "completed", None)
    room: Texts | None = _said("the room's name; shell pattern, with case", "sales-*", None)
    room_id: Texts | None = _said("the room's id", "6544d1e2f3a4b5c6d7e8f900", None)
    session_id: Texts | None = _said("the session's id", "65f0aa11bb22cc33dd44ee55", None)
    asset_id: Texts | None = _said("the recording's own id", "6544d1e2f3a4b5c6d7e8f901", None)
    job_id: Texts | None = _said("the id of the job that made it", "b544d1e2f3a4b5c6d7e8f9", None)
    template_id: Texts | None = _said(
        "the id of the room's template", "6544d1e2f3a4b5c6d7e8f9aa", None
    )
    template: Texts | None = _said(
        "the template's name; shell pattern, with case", "webinar-*", None
    )
    user_id: Texts | None = _said("the user of a stream; other types carry none", "u-4711", None)
    peer_id: Texts | None = _said(
        "the peer of a track or stream; other types carry none", "p-0815", None
    )
    size: SizeRange | None = _said("bytes, by 100ms's record", {"min": "10MB"}, None)
    duration: Range | None = _said("seconds, by 100ms's record", {"max": 60}, None)
    created: CreatedRange | None = _said(
        "when it was recorded", {"after": "2026-01-01", "before": "2027-01-01"}, None
    )
    path: Texts | None = _said(
        "where 100ms says that it lies; shell pattern, with case", "s3://acme-raw/*", None
    )
    metadata: dict[str, RangeOrTexts] | None = _said(
        "by key, dotted where it is nested: one of these, or {min, max}",
        {"resolution.width": {"min": 1280}},
        None,
    )
    thumbnails: YesOrTexts | None = _said(
        "whether it has any, or shell patterns of their paths", True, None
    )
    any: Annotated[list[MatchField], Field(min_length=1)] | None = _said(
        "one of these matches", [{"type": "chat"}, {"room": "sales-*"}], None
    )
    all: Annotated[list[MatchField], Field(min_length=1)] | None = _said(
        "all of these match", [{"room": "sales-*"}, {"room": "*-emea"}], None
    )
    not_: MatchField | None = _said(
        "this certainly does not match", {"room": "test-*"}, None, alias="not"
    )
    everything: bool = Field(False, alias=EVERYTHING)


class _MatchSchema:
    """In JSON Schema a match is the word `all` or a mapping."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"const": "all"}, handler(core)]}


MatchField = Annotated[MatchMap, BeforeValidator(_match), _MatchSchema]


_WHY = "shown in every plan and in the journal"
_OWNER = "who answers for it; shown where it decides"


class KeepItem(Strict):
    in_: Text = _said("the store", "vault", alias="in")
    for_: PeriodText = _said("how long, from the recording's creation", "7y", alias="for")
    after: PeriodText | None = _said("the copy is due only from then on", "90d", None)
    basis: Literal["legal"] | None = _said(
        "a legal duty: it stands against an erasure", "legal", None
    )


class DeleteItem(Strict):
    in_: Text = _said("the store", "uploads", alias="in")
    after: PeriodText = _said("from then on, counted from the recording's creation", "30d")
    versions: Literal["all"] | None = _said(
        "with every version that the bucket keeps of it, for good; left out: what is deleted can "
        "be brought back where the bucket keeps versions",
        "all",
        None,
    )


class RuleItem(Strict):
    id: Id = _said("its name in plans, journal and comments", "sales-calls")
    why: Text | None = _said(_WHY, "Sales call records, LEGAL-88", None)
    owner: Text | None = _said(_OWNER, "@acme/compliance", None)
    match: MatchField = _said(
        "which recordings; `all` is the way to say everything", {"type": "chat"}
    )
    keep: Annotated[list[KeepItem], Field(min_length=1)] | None = _said(
        "where copies must be, and for how long", [{"in": "vault", "for": "7y"}], None
    )
    delete: Annotated[list[DeleteItem], Field(min_length=1)] | None = _said(
        "where they go, once nothing asks for them there", [{"in": "uploads", "after": "30d"}], None
    )
    at_most: PeriodText | None = _said("gone from every store by then", "45d", None)
    then: Literal["delete", "leave"] | None = _said(
        "what happens when a keep is over; left out: leave", "delete", None
    )


class HoldItem(Strict):
    id: Id = _said("its name in plans, journal and comments", "LIT-204")
    why: Text = _said(_WHY, "Acme v. Example")
    owner: Text | None = _said(_OWNER, "@acme/legal", None)
    match: MatchField = _said(
        "which recordings are frozen, in every store", {"room_id": "6544d1e2f3a4b5c6d7e8f900"}
    )
    in_: Text = _said("the store where a copy must be", "vault", alias="in")
    released: Text | None = _said(
        "the hold ends here; a date is the start of that day in `timezone`", "2026-10-01", None
    )


class DecidedItem(Strict):
    asset_id: Texts = _said(
        "a recording of the same session, or several", "6544d1e2f3a4b5c6d7e8f901"
    )
    decision: Literal["erase", "stay"] = _said(
        "what becomes of it: erased too, or not erased by this entry, whatever its match says",
        "stay",
    )
    why: Text = _said("for whoever reviews it; shown nowhere else", "shows the other party alone")


class ErasureItem(Strict):
    id: Id = _said("its name in plans, journal and comments", "DSR-17")
    why: Text = _said(_WHY, "Art. 17 request")
    owner: Text | None = _said(_OWNER, "@acme/privacy", None)
    match: MatchField = _said(
        "which recordings are erased, in every store", {"session_id": "65f0aa11bb22cc33dd44ee55"}
    )
    requested: Text | None = _said(
        "starts the request's clock and delays nothing", "2026-11-01", None
    )
    decided: Annotated[list[DecidedItem], Field(min_length=1)] | None = _said(
        "what somebody who looked says of other recordings of the same sessions",
        [{"asset_id": "6544d1e2f3a4b5c6d7e8f901", "decision": "erase", "why": "they speak"}],
        None,
    )


class AcceptanceItem(Strict):
    asset_id: Text = _said("the recording", "6544d1e2f3a4b5c6d7e8f901")
    why: Text = _said("why that is good enough", "plays to its last minute")
    owner: Text | None = _said("who answers for it", "@acme/legal", None)


class PolicyFile(Strict):
    version: Version = _said("of the language; stands first", 1)
    rules: list[RuleItem] = _said(
        "what is kept, and what is deleted",
        [{"id": "all", "match": "all", "keep": [{"in": "vault", "for": "1y"}]}],
        [],
    )
    holds: list[HoldItem] = _said(
        "what nothing may delete while it stands",
        [{"id": "LIT-204", "why": "Acme v. Example", "match": {"room": "acme"}, "in": "vault"}],
        [],
    )
    erasures: list[ErasureItem] = _said(
        "what must go, unless a hold or a legal keep protects it",
        [{"id": "DSR-17", "why": "Art. 17 request", "match": {"user_id": "u-4711"}}],
        [],
    )
    accept: list[AcceptanceItem] = _said(
        "recordings whose partial copy counts from now on",
        [{"asset_id": "6544d1e2f3a4b5c6d7e8f901", "why": "plays to its last minute"}],
        [],
    )
    losses: list[AcceptanceItem] = _said(
        "recordings that are lost, which is no alarm any more",
        [{"asset_id": "6544d1e2f3a4b5c6d7e8f902", "why": "100ms dropped it, INC-12"}],
        [],
    )


class PlaceItem(Strict):
    url: Text = _said(
        "s3://bucket/prefix, gs://bucket/prefix, oss://bucket/prefix or file:///folder",
        "s3://acme-vault/100ms",
    )
    region: Text | None = _said("where the bucket is", "eu-west-1", None)
    endpoint: Text | None = _said(
        "for S3-compatible or emulated servers", "http://127.0.0.1:8333", None
    )
    addressing: Literal["virtual", "path"] | None = _said(
        "whether the bucket is in the host's name or in the path; with an endpoint of s3:// it is "
        "in the path, else in the host",
        "path",
        None,
    )
    profile: Text | None = _said(
        "the profile of the AWS configuration whose credentials are used", "archive", None
    )
    role_arn: Text | None = _said(
        "the role that is assumed with these credentials, such as of another account",
        "arn:aws:iam::123456789012:role/retainer",
        None,
    )
    impersonate: Text | None = _said(
        "the service account of Google that is acted as with these credentials",
        "retainer@acme.iam.gserviceaccount.com",
        None,
    )
    concurrency: Annotated[WholeNumber, Field(ge=1, le=256)] | None = _said(
        "calls at once at most (256); it begins with 32, goes up while all is well, and is halved "
        "where the server asks for less",
        64,
        None,
    )


class ListingItem(Strict):
    inventory: Text | None = _said(
        "the folder of S3 Inventory's configuration (destination prefix, source bucket, "
        "configuration), or the one that Storage Insights writes to",
        "s3://acme-reports/inventory/acme-vault/daily",
        None,
    )


class StoreItem(PlaceItem):
    layout: Text = _said(
        "key template with {asset_id}, or `100ms` for a bucket 100ms uploads to",
        "{type}/{asset_id}/{filename}",
        DEFAULT_LAYOUT,
    )
    layouts: list[Text] = _said(
        "templates of earlier days, so that old copies are still known",
        ["{yyyy}/{asset_id}/{filename}"],
        [],
    )
    storage_class: Text | None = _said("of new copies", "GLACIER_IR", None)
    storage_class_from: Size = _said(
        "smaller objects stay in the standard class (0B: none does); AWS bills 128 KiB at least",
        "128KiB",
        128 << 10,
    )
    kms_key: Text | None = _said(
        "encrypt new copies with this key (SSE-KMS, CMEK)", "alias/recordings", None
    )
    tags: dict[Text, Text] = _said("object tags of new copies; S3 only", {"team": "legal"}, {})
    cache_control: Text | None = _said(
        "the Cache-Control header of new copies", "private, no-store", None
    )
    may_be_emptied: Annotated[bool, BeforeValidator(resolved)] = _said(
        "whether a plan may delete all, or any part, of what lies there without a `--lift`, as in "
        "a bucket that 100ms uploads to; `count` and `bytes` limit it all the same",
        True,
        False,
    )
    lock: Literal["governance", "compliance"] | None = _said(
        "lock every copy until its keep is over", "governance", None
    )
    listing: ListingItem = _said(
        "how to find out what lies there: by asking (the default), or by the bucket's own reports",
        {"inventory": "s3://acme-reports/inventory/acme-vault/daily"},
        ListingItem(),
    )


class SourceItem(Strict):
    url: Text = _said("the 100ms API", "https://api.100ms.live/v2", "https://api.100ms.live/v2")
    hosted: list[Text] = _said(
        "buckets that are 100ms's own: what lies there lapses after 15 days",
        ["s3://hms-prod-*"],
        [],
    )
    media_hosts: list[Text] = _said(
        "hosts that the playlists of a hosted recording may lead to, beside its own",
        ["*.example-cdn.com"],
        list(MEDIA_HOSTS),
    )
    allow_http: Annotated[bool, BeforeValidator(resolved)] = _said(
        "ask the API without TLS, other than on this machine", True, False
    )
    concurrency: Annotated[WholeNumber, Field(ge=1, le=64)] = _said(
        "calls to the API at once at most; halved where it answers 429, until it takes more again",
        4,
        CALLS_AT_ONCE,
    )


class DeleteLimitsItem(Strict):
    count: WholeNumber = _said("deletes of every store and every rule", 500, 500)
    percent: Annotated[Number, Field(le=100)] = _said(
        "of what lies in a store; counts from 20 deletes up", 10, 10
    )
    bytes: Size = _said("bytes of every store and every rule", "100GB", 100_000_000_000)
    last_copies: WholeNumber = _said(
        "last copies that one plan may delete by a rule without `then: delete` and `at_most`", 0, 0
    )


class LimitsItem(Strict):
    deletes: DeleteLimitsItem = _said(
        "what may go in any 24 hours; more is held back until a person says so",
        {"count": 500, "percent": 10, "bytes": "100GB"},
        DeleteLimitsItem(),
    )
    disappeared: Annotated[Number, Field(le=100)] = _said(
        "percent of what the last run saw: where more is gone from a list, and not by retainer, "
        "the list counts as unfinished; counts from 20 up",
        50,
        50,
    )
    second_person: Annotated[bool, BeforeValidator(resolved)] = _said(
        "whether deletes want an approval by somebody else (`retainer approve`), signed with a key "
        "that stands in `allowed_signers` beside retainer.yaml",
        True,
        False,
    )
    cooling: PeriodText | None = _said(
        "so long after it was shortened or taken out, a keep still counts as it was; needs git, "
        "from which the policies of earlier applies are read",
        "30d",
        None,
    )
    plan_age: PeriodText = _said(
        "a plan is refused after this time", "24h", Period(seconds=86400, text="24h")
    )


class PriceItem(Strict):
    storage: Number = _said("dollars for a GB (2^30 bytes) and month", 0.004)
    put: Number = _said("dollars for 1,000 objects written", 0.02, 0)
    retrieval: Number = _said("dollars for a GB read", 0.03, 0)
    egress: Number = _said("dollars for a GB that leaves the cloud", 0.09, 0)
    least_days: WholeNumber = _said("for so many days an object is billed at the least", 90, 0)


class SettingsFile(Strict):
    version: Version = _said("of the language; stands first", 1)
    timezone: Text = _said("the calendar that periods are counted in", "Europe/Berlin", "UTC")
    source: SourceItem = Field(
        default_factory=lambda: SourceItem.model_validate({}),
        description="100ms, and which buckets are its own",
        examples=[{"hosted": ["s3://hms-prod-*"]}],
    )
    stores: dict[Id, StoreItem] = _said(
        "the places, by name", {"vault": {"url": "s3://acme-vault/100ms"}}, {}
    )
    limits: LimitsItem = Field(
        default_factory=lambda: LimitsItem.model_validate({}),
        description="how much may be deleted, and how old a plan may be",
        examples=[{"plan_age": "24h"}],
    )
    prices: dict[Id, PriceItem] = _said(
        "what a store costs, by its name; else the clouds' own lists count",
        {"vault": {"storage": 0.004, "least_days": 90}},
        {},
    )
    state: Text | PlaceItem = _said(
        "the folder of the record; or a place that several machines share, as a url or with the "
        "same keys as a store",
        {"url": "s3://acme-audit/retainer", "region": "eu-west-1"},
        ".retainer",
    )


MatchMap.model_rebuild()


def json_schema() -> dict[str, Any]:
    """The JSON Schema of policy files and of `retainer.yaml`, for editors."""

    def clean(name: str, model: type[BaseModel]) -> dict[str, Any]:
        schema = model.model_json_schema(by_alias=True)
        for definition in schema.get("$defs", {}).values():
            definition.get("properties", {}).pop(EVERYTHING, None)
        schema["title"] = name
        return schema

    policy = clean("retainer policy", PolicyFile)
    settings = clean("retainer.yaml", SettingsFile)
    definitions = {**policy.pop("$defs"), **settings.pop("$defs")}
    policy["required"] = ["version"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "retainer",
        "if": {
            "anyOf": [
                {"required": [key]}
                for key in ("stores", "source", "limits", "prices", "state", "timezone")
            ]
        },
        "then": settings,
        "else": policy,
        "$defs": definitions,
    }
