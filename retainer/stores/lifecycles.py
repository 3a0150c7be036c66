"""The lifecycle rules of buckets, as S3 and Google Cloud Storage tell them. No I/O.

Sources: https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLifecycleConfiguration.html,
https://cloud.google.com/storage/docs/lifecycle. What is not understood narrows a rule, and never
makes it go away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from retainer.model.lifecycle import LifecycleRule
from retainer.model.moment import read_moment
from retainer.stores.calls import Nonsense


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _child(element: ElementTree.Element, name: str) -> ElementTree.Element | None:
    return next((each for each in element if _name(each) == name), None)


def _text(element: ElementTree.Element | None, name: str) -> str | None:
    found = _child(element, name) if element is not None else None
    return None if found is None else (found.text or "").strip()


def s3_lifecycle(root: ElementTree.Element) -> tuple[LifecycleRule, ...]:
    """Raises Nonsense."""
    if _name(root) != "LifecycleConfiguration":
        raise Nonsense
    return tuple(
        act
        for rule in root
        if _name(rule) == "Rule" and _text(rule, "Status") != "Disabled"
        for act in _s3_rule(rule)
    )


def _s3_rule(rule: ElementTree.Element) -> Iterator[LifecycleRule]:
    name = _text(rule, "ID") or "without a name"
    prefix, narrowed = _text(rule, "Prefix") or "", []
    found = _child(rule, "Filter")
    inside = list(found) if found is not None else []
    for each in [*inside, *(deeper for one in inside if _name(one) == "And" for deeper in one)]:
        match _name(each):
            case "Prefix":
                prefix = (each.text or "").strip()
            case "Tag":
                narrowed.append(f"tag {_text(each, 'Key')} is {_text(each, 'Value')}")
            case "ObjectSizeGreaterThan":
                narrowed.append(f"larger than {(each.text or '').strip()} bytes")
            case "ObjectSizeLessThan":
                narrowed.append(f"smaller than {(each.text or '').strip()} bytes")
            case "And":
                pass
            case other:
                narrowed.append(other)
    common: dict[str, Any] = {
        "id": name,
        "prefixes": (prefix,) if prefix else (),
        "narrowed": tuple(narrowed),
    }
    for each in rule:
        match _name(each):
            case "Expiration" if _text(each, "Days") or _text(each, "Date"):
                yield LifecycleRule(act="delete", **_s3_when(each, "Days"), **common)
            case "Transition":
                to = _text(each, "StorageClass") or "another class"
                yield LifecycleRule(act="move", to=to, **_s3_when(each, "Days"), **common)
            case "NoncurrentVersionExpiration":
                when = _s3_when(each, "NoncurrentDays")
                yield LifecycleRule(act="delete", versions=True, **when, **common)


def _s3_when(element: ElementTree.Element, days: str) -> dict[str, Any]:
    """Raises Nonsense."""
    told, date = _text(element, days), _text(element, "Date")
    try:
        found = int(told) if told else None
    except ValueError:
        raise Nonsense from None
    on = read_moment(date) if date else None
    if found is None and on is None:
        raise Nonsense
    return {"days": found, "on": on}


_OF_VERSIONS = ("numNewerVersions", "daysSinceNoncurrentTime", "noncurrentTimeBefore")
_KNOWN = ("age", "matchesPrefix", "isLive", "createdBefore", *_OF_VERSIONS)


def gcs_lifecycle(told: Mapping[str, Any]) -> tuple[LifecycleRule, ...]:
    """Raises Nonsense."""
    try:
        rules: Sequence[Any] = (told.get("lifecycle") or {}).get("rule") or []
        return tuple(act for number, rule in enumerate(rules, 1) for act in _gcs_rule(number, rule))
    except (AttributeError, TypeError, ValueError):
        raise Nonsense from None


def _gcs_rule(number: int, rule: Mapping[str, Any]) -> Iterator[LifecycleRule]:
    action, condition = rule.get("action") or {}, rule.get("condition") or {}
    kind = action.get("type")
    if kind == "AbortIncompleteMultipartUpload":
        return
    versions = condition.get("isLive") is False or any(name in condition for name in _OF_VERSIONS)
    days = condition.get("daysSinceNoncurrentTime") if versions else condition.get("age")
    before = condition.get("createdBefore")
    narrowed = [f"{name} {value}" for name, value in condition.items() if name not in _KNOWN]
    narrowed += [f"made before {before}"] if before else []
    yield LifecycleRule(
        id=f"rule {number}",
        act="delete" if kind == "Delete" else "move",
        prefixes=tuple(map(str, condition.get("matchesPrefix") or ())),
        days=int(days) if days is not None else None,
        to=str(action.get("storageClass") or kind or "another class"),
        narrowed=tuple(narrowed),
        versions=versions,
    )
