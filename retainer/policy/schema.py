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
from retainer.model.setting import DEFAULT_LAYOUT, MEDIA_HOSTS
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


class Range(Strict):
    min: Number | None = Field(None, description="included")
    max: Number | None = Field(None, description="included")


class SizeRange(Range):
    min: Bytes | None = Field(None, description="included; bytes, or with a unit such as 10GB")
    max: Bytes | None = Field(None, description="included; bytes, or with a unit such as 10GB")


class CreatedRange(Strict):
    after: Text | None = Field(
        None, description="a date (the start of that day in `timezone`) or RFC 3339; included"
    )
    before: Text | None = Field(None, description="a date or RFC 3339; not included")


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

    type: Types | None = None
    status: Statuses | None = None
    room: Texts | None = Field(None, description="the room's name; shell pattern, with case")
    room_id: Texts | None = None
    session_id: Texts | None = None
    asset_id: Texts | None = None
    job_id: Texts | None = None
    template_id: Texts | None = Field(None, description="the id of the room's template")
    template: Texts | None = Field(
        None, description="the template's name; shell pattern, with case"
    )
    user_id: Texts | None = None
    peer_id: Texts | None = None
    size: SizeRange | None = None
    duration: Range | None = Field(None, description="seconds")
    created: CreatedRange | None = None
    path: Texts | None = Field(None, description="shell pattern, with case")
    metadata: dict[str, RangeOrTexts] | None = Field(
        None, description="by key, dotted where it is nested: one of these, or {min, max}"
    )
    thumbnails: YesOrTexts | None = Field(
        None, description="whether it has any, or shell patterns of their paths"
    )
    any: Annotated[list[MatchField], Field(min_length=1)] | None = Field(
        None, description="one of these matches"
    )
    all: Annotated[list[MatchField], Field(min_length=1)] | None = Field(
        None, description="all of these match"
    )
    not_: MatchField | None = Field(None, alias="not")
    everything: bool = Field(False, alias=EVERYTHING)


class _MatchSchema:
    """In JSON Schema a match is the word `all` or a mapping."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"const": "all"}, handler(core)]}


MatchField = Annotated[MatchMap, BeforeValidator(_match), _MatchSchema]


class KeepItem(Strict):
    in_: Text = Field(alias="in", description="the store")
    for_: PeriodText = Field(alias="for", description="how long, from the recording's creation")
    after: PeriodText | None = Field(None, description="the copy is due only from then on")
    basis: Literal["legal"] | None = Field(
        None, description="a legal duty: it stands against an erasure"
    )


class DeleteItem(Strict):
    in_: Text = Field(alias="in", description="the store")
    after: PeriodText


class RuleItem(Strict):
    id: Id
    why: Text | None = Field(None, description="shown in every plan and in the journal")
    owner: Text | None = None
    match: MatchField
    keep: Annotated[list[KeepItem], Field(min_length=1)] | None = None
    delete: Annotated[list[DeleteItem], Field(min_length=1)] | None = None
    at_most: PeriodText | None = Field(None, description="gone from every store by then")
    then: Literal["delete", "leave"] | None = Field(
        None, description="what happens when a keep is over; left out: leave"
    )


class HoldItem(Strict):
    id: Id
    why: Text
    owner: Text | None = None
    match: MatchField
    in_: Text = Field(alias="in", description="the store where a copy must be")
    released: Text | None = Field(
        None, description="the hold ends here; a date is the start of that day in `timezone`"
    )


class ErasureItem(Strict):
    id: Id
    why: Text
    owner: Text | None = None
    match: MatchField
    requested: Text | None = Field(
        None, description="starts the request's clock and delays nothing"
    )


class AcceptanceItem(Strict):
    asset_id: Text
    why: Text
    owner: Text | None = None


class PolicyFile(Strict):
    version: Version
    rules: list[RuleItem] = []
    holds: list[HoldItem] = []
    erasures: list[ErasureItem] = []
    accept: list[AcceptanceItem] = Field(
        [], description="recordings whose partial copy counts from now on"
    )
    losses: list[AcceptanceItem] = Field(
        [], description="recordings that are lost, which is no alarm any more"
    )


class StoreItem(Strict):
    url: Text = Field(description="s3://bucket/prefix, gs://bucket/prefix or file:///folder")
    layout: Text = Field(
        DEFAULT_LAYOUT,
        description="key template with {asset_id}, or `100ms` for a bucket 100ms uploads to",
    )
    layouts: list[Text] = Field(
        [], description="templates of earlier days, so that old copies are still known"
    )
    region: Text | None = None
    endpoint: Text | None = Field(
        None, description="for S3-compatible or emulated servers, such as http://127.0.0.1:8333"
    )
    addressing: Literal["virtual", "path"] | None = Field(
        None,
        description=(
            "whether the bucket is in the host's name or in the path; with an endpoint of s3:// it "
            "is in the path, else in the host"
        ),
    )
    profile: Text | None = Field(
        None, description="the profile of the AWS configuration whose credentials are used"
    )
    role_arn: Text | None = Field(
        None, description="the role that is assumed with these credentials, such as of an account"
    )
    impersonate: Text | None = Field(
        None, description="the service account of Google that is acted as with these credentials"
    )
    concurrency: Annotated[WholeNumber, Field(ge=1, le=256)] | None = Field(
        None,
        description=(
            "calls at once at most (256); it begins with 32, goes up while all is well, and is "
            "halved where the server asks for less"
        ),
    )
    storage_class: Text | None = Field(None, description="of new copies, such as GLACIER_IR")
    storage_class_from: Size = Field(
        128 << 10,
        description=(
            "smaller objects stay in the standard class (0B: none does); AWS bills 128 KiB at least"
        ),
    )
    kms_key: Text | None = Field(
        None, description="encrypt new copies with this key (SSE-KMS, CMEK)"
    )
    tags: dict[Text, Text] = Field({}, description="object tags of new copies; S3 only")
    cache_control: Text | None = Field(
        None, description="the Cache-Control header of new copies, such as `private, no-store`"
    )
    may_be_emptied: Annotated[bool, BeforeValidator(resolved)] = Field(
        False,
        description=(
            "whether a plan may delete all, or any part, of what lies there without a `--lift`, as "
            "in a bucket that 100ms uploads to; `count` and `bytes` limit it all the same"
        ),
    )
    lock: Literal["governance", "compliance"] | None = Field(
        None, description="lock every new copy until its keep is over"
    )


class SourceItem(Strict):
    url: Text = "https://api.100ms.live/v2"
    hosted: list[Text] = Field(
        [], description="buckets that are 100ms's own, such as s3://hms-prod-*"
    )
    media_hosts: list[Text] = Field(
        list(MEDIA_HOSTS),
        description="hosts that the playlists of a hosted recording may lead to, beside its own, "
        "such as *.example-cdn.com",
    )
    allow_http: Annotated[bool, BeforeValidator(resolved)] = Field(
        False, description="ask the API without TLS, other than on this machine"
    )


class DeleteLimitsItem(Strict):
    count: WholeNumber = 500
    percent: Annotated[Number, Field(le=100)] = 10
    bytes: Size = 100_000_000_000
    last_copies: WholeNumber = Field(
        default=0,
        description=(
            "last copies that one plan may delete by a rule without `then: delete` and `at_most`"
        ),
    )


class LimitsItem(Strict):
    deletes: DeleteLimitsItem = DeleteLimitsItem()
    plan_age: PeriodText = Field(
        Period(seconds=86400, text="24h"), description="a plan is refused after this time"
    )


class PriceItem(Strict):
    storage: Number = Field(description="dollars for a GB (2^30 bytes) and month")
    put: Number = Field(0, description="dollars for 1,000 objects written")
    retrieval: Number = Field(0, description="dollars for a GB read")
    egress: Number = Field(0, description="dollars for a GB that leaves the cloud")
    least_days: WholeNumber = Field(
        0, description="for so many days an object is billed at the least"
    )


class SettingsFile(Strict):
    version: Version
    timezone: Text = "UTC"
    source: SourceItem = Field(default_factory=lambda: SourceItem.model_validate({}))
    stores: dict[Id, StoreItem] = {}
    limits: LimitsItem = Field(default_factory=lambda: LimitsItem.model_validate({}))
    prices: dict[Id, PriceItem] = Field(
        {}, description="what a store costs, by its name; else the clouds' own lists count"
    )
    state: Text = ".retainer"


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
