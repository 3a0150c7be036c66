"""What the owner of a bucket has set, as its answers say it, in words. No I/O.

Sources: https://docs.aws.amazon.com/AmazonS3/latest/API/ (GetBucketLocation, GetPublicAccessBlock,
GetBucketPolicyStatus, GetBucketReplication, GetObjectLockConfiguration, GetBucketVersioning), and
https://cloud.google.com/storage/docs/json_api/v1/buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from xml.etree import ElementTree

from retainer.model.diagnosis import Found
from retainer.model.setting import Store
from retainer.stores.calls import Nonsense
from retainer.stores.gcs_answers import parsed as parsed_json
from retainer.stores.s3_answers import locks_in, name_of, parsed, refusal_of, texts
from retainer.stores.wire import Answer

Asked = Callable[[str], Answer | None]
"""What a bucket answers when it is asked for one of its settings; None where it does not."""


def mfa_in(answer: Answer) -> bool:
    """Whether versions and delete markers go only with a second factor. `answer`: of
    GetBucketVersioning. Raises Nonsense."""
    told = texts(parsed(answer.content))
    return told.get("MfaDelete", told.get("MFADelete")) == "Enabled"


def s3_traits(store: Store, asked: Asked) -> Iterator[Found]:
    """Of a bucket of S3's kind. Makers who do not know a setting answer in many ways, so that only
    Amazon is asked for what it alone means: where it lies, and whether it is public."""
    if store.endpoint is None:
        yield from _place(store, asked("location"))
        yield from _public(store, asked)
    yield from _replicas(store, asked("replication"))
    yield from _default_lock(store, asked("object-lock"))
    answer = asked("versioning")
    if answer is not None and refusal_of(answer) is None and mfa_in(answer):
        yield Found(
            store.name,
            "told",
            "versions and delete markers go only with a second factor (MFA delete)",
            "`retainer restore` tells the command for a person",
        )


def _cannot(store: Store, what: str, right: str) -> Found:
    return Found(store.name, "unsure", f"{what} cannot be read", f"the right is {right}")


def _place(store: Store, answer: Answer | None) -> Iterator[Found]:
    if answer is None or refusal_of(answer) is not None:
        yield _cannot(store, "where the bucket lies", "s3:GetBucketLocation")
        return
    told = (parsed(answer.content).text or "").strip()
    region = {"": "us-east-1", "EU": "eu-west-1"}.get(told, told)
    if store.region and store.region != region:
        yield Found(
            store.name,
            "worry",
            f"the bucket lies in {region}, and `region:` says {store.region}",
            f"write `region: {region}` in retainer.yaml, or name the bucket that was meant",
        )
    else:
        yield Found(store.name, "well", f"the bucket lies in {region}")


def _public(store: Store, asked: Asked) -> Iterator[Found]:
    answer = asked("publicAccessBlock")
    told = refusal_of(answer) if answer is not None else None
    if answer is None or (told and told.code != "NoSuchPublicAccessBlockConfiguration"):
        yield _cannot(store, "whether the public is kept out", "s3:GetBucketPublicAccessBlock")
        return
    blocks = {} if told else texts(parsed(answer.content))
    if len(blocks) == 4 and set(blocks.values()) == {"true"}:
        yield Found(store.name, "well", "the public is kept out, whatever a policy says")
        return
    status = asked("policyStatus")
    is_public = (
        status is not None
        and refusal_of(status) is None
        and texts(parsed(status.content)).get("IsPublic") == "true"
    )
    yield Found(
        store.name,
        "worry" if is_public else "unsure",
        "anybody can read what lies there"
        if is_public
        else "nothing keeps a policy or an ACL from letting the public in",
        "block public access on the bucket (`aws s3api put-public-access-block`)",
    )


def _replicas(store: Store, answer: Answer | None) -> Iterator[Found]:
    if answer is None:
        return
    if told := refusal_of(answer):
        if store.endpoint is None and told.code != "ReplicationConfigurationNotFoundError":
            yield _cannot(
                store, "whether the bucket is replicated", "s3:GetReplicationConfiguration"
            )
        return
    root = parsed(answer.content)
    if name_of(root) != "ReplicationConfiguration":
        return
    for rule in _all(root, "Rule"):
        of = texts(rule)
        if of.get("Status") != "Enabled":
            continue
        to = ", ".join(
            texts(each).get("Bucket", "").removeprefix("arn:aws:s3:::") or "another bucket"
            for each in _all(rule, "Destination")
        )
        yield Found(
            store.name,
            "unsure",
            f"what is written there is replicated to {to}, where retainer deletes nothing",
            "a period, a hold or an erasure ends in this bucket alone: see to the other one, too",
        )


def _default_lock(store: Store, answer: Answer | None) -> Iterator[Found]:
    if store.lock and answer is not None and locks_in(answer) is False:
        yield Found(
            store.name,
            "bad",
            "copies are to be locked there (`lock:`), and the bucket locks nothing: they fail",
            "switch Object Lock on, or take `lock:` out",
        )
    if answer is None or refusal_of(answer) is not None:
        return
    for each in _all(parsed(answer.content), "DefaultRetention"):
        of = texts(each)
        length = f"{of['Days']} days" if of.get("Days") else f"{of.get('Years', '?')} years"
        yield Found(
            store.name,
            "told",
            f"the bucket locks each new object for {length} ({of.get('Mode', '?').lower()}): "
            "nothing of it can be deleted before",
        )


def _all(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (each for each in root.iter() if name_of(each) == name)


GCS_FIELDS = "location,locationType,iamConfiguration,retentionPolicy,defaultEventBasedHold"


def gcs_traits(store: Store, answer: Answer) -> Iterator[Found]:
    """Of a bucket of Google's. `answer`: its metadata. Raises Nonsense."""
    told = parsed_json(answer)
    try:
        access = (told.get("iamConfiguration") or {}).get("publicAccessPrevention")
        seconds = int((told.get("retentionPolicy") or {}).get("retentionPeriod") or 0)
        is_locked = (told.get("retentionPolicy") or {}).get("isLocked") is True
    except (AttributeError, TypeError, ValueError):
        raise Nonsense from None
    if place := told.get("location"):
        yield Found(store.name, "well", f"the bucket lies in {str(place).lower()}")
    if access == "enforced":
        yield Found(store.name, "well", "the public is kept out, whatever a policy says")
    elif store.endpoint is None:
        yield Found(
            store.name,
            "unsure",
            "nothing of the bucket's own keeps a policy or an ACL from letting the public in",
            "`gcloud storage buckets update --public-access-prevention`, unless the organization "
            "enforces it",
        )
    if seconds:
        locked = ", and nobody can shorten that" if is_locked else ""
        yield Found(
            store.name,
            "told",
            f"the bucket retains each object for {seconds / 86400:g} days{locked}: nothing of it "
            "can be deleted before",
        )
    if told.get("defaultEventBasedHold"):
        yield Found(
            store.name,
            "told",
            "the bucket puts an event-based hold on each new object: nothing of it can be deleted "
            "until a person ends that",
        )
