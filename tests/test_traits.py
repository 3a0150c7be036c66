"""What the owner of a bucket has set, as `retainer doctor` tells it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import servers
from conftest import make_store

from retainer.model.diagnosis import Found
from retainer.model.setting import Store
from retainer.stores.calls import Nonsense
from retainer.stores.local import LocalReader
from retainer.stores.s3 import S3Reader
from retainer.stores.traits import gcs_traits, s3_traits
from retainer.stores.wire import Answer

VAULT = Store("vault", "s3://acme-vault/100ms", region="eu-west-1")
BLOCKS = "".join(
    f"<{name}>true</{name}>"
    for name in (
        "BlockPublicAcls",
        "IgnorePublicAcls",
        "BlockPublicPolicy",
        "RestrictPublicBuckets",
    )
)
WELL = {
    "location": "<LocationConstraint>eu-west-1</LocationConstraint>",
    "publicAccessBlock": f"<PublicAccessBlockConfiguration>{BLOCKS}</PublicAccessBlockConfiguration>",
    "replication": "!ReplicationConfigurationNotFoundError",
    "object-lock": "!ObjectLockConfigurationNotFoundError",
    "versioning": "<VersioningConfiguration/>",
}


def told(store: Store = VAULT, **answers: str | None) -> dict[str, str]:
    """How each thing is that is not well, by its words. An answer that begins with `!` is an
    error."""

    def asked(name: str) -> Answer | None:
        text = {**WELL, **{key.replace("_", "-"): of for key, of in answers.items()}}.get(name)
        if text is None:
            return None
        if text.startswith("!"):
            status = 403 if text == "!AccessDenied" else 404
            return Answer(status, {}, f"<Error><Code>{text[1:]}</Code></Error>".encode())
        return Answer(200, {}, text.encode())

    return {each.text: each.health for each in s3_traits(store, asked) if each.health != "well"}


def test_a_bucket_that_is_as_it_should_be_is_well() -> None:
    assert told() == {}


@pytest.mark.parametrize(
    ("answer", "region"),
    [
        ("<LocationConstraint/>", "us-east-1"),
        ("<LocationConstraint>EU</LocationConstraint>", "eu-west-1"),
        ("<LocationConstraint>ap-south-1</LocationConstraint>", "ap-south-1"),
    ],
)
def test_a_region_that_the_settings_have_otherwise_is_told(answer: str, region: str) -> None:
    assert told(replace(VAULT, region=region), location=answer) == {}
    (said,) = told(replace(VAULT, region="sa-east-1"), location=answer).items()
    assert said == (f"the bucket lies in {region}, and `region:` says sa-east-1", "worry")


@pytest.mark.parametrize("blocks", ["!NoSuchPublicAccessBlockConfiguration", "some"])
@pytest.mark.parametrize(
    ("policy", "health"), [("true", "worry"), ("false", "unsure"), (None, "unsure")]
)
def test_a_bucket_that_the_public_can_read_is_told(
    blocks: str, policy: str | None, health: str
) -> None:
    if blocks == "some":
        blocks = WELL["publicAccessBlock"].replace("true", "false", 1)
    status = f"<PolicyStatus><IsPublic>{policy}</IsPublic></PolicyStatus>" if policy else None
    assert list(told(publicAccessBlock=blocks, policyStatus=status).values()) == [health]


def test_what_may_not_be_read_is_told_with_the_right_that_it_takes() -> None:
    denied = dict.fromkeys(("location", "publicAccessBlock", "replication"), "!AccessDenied")
    assert set(told(**denied).values()) == {"unsure"}
    assert len(told(**denied)) == 3


def test_what_other_makers_do_not_know_is_left_out() -> None:
    elsewhere = replace(VAULT, endpoint="https://s3.example.com")
    refused = dict.fromkeys(WELL, "!NotImplemented")
    assert told(elsewhere, **{name.replace("-", "_"): of for name, of in refused.items()}) == {}


def test_replicas_and_locks_by_default_and_a_second_factor_are_told() -> None:
    rule = "<Rule><Status>{}</Status><Destination><Bucket>arn:aws:s3:::mirror</Bucket></Destination></Rule>"
    both = rule.format("Enabled") + rule.format("Disabled").replace("mirror", "old")
    lock = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>30</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
    versions = "<VersioningConfiguration><MfaDelete>Enabled</MfaDelete></VersioningConfiguration>"
    found = told(
        replication=f"<ReplicationConfiguration>{both}</ReplicationConfiguration>",
        object_lock=lock,
        versioning=versions,
    )
    assert found == {
        "what is written there is replicated to mirror, where retainer deletes nothing": "unsure",
        "the bucket locks each new object for 30 days (compliance): nothing of it can be deleted "
        "before": "told",
        "versions and delete markers go only with a second factor (MFA delete)": "told",
    }


@pytest.mark.parametrize("name", list(WELL))
def test_an_answer_that_makes_no_sense_is_nonsense(name: str) -> None:
    with pytest.raises(Nonsense):
        told(**{name.replace("-", "_"): "<html"})


@pytest.fixture
def bucket(moto: str) -> Iterator[tuple[Any, str]]:
    client, name = servers.s3_client(moto), f"traits-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    yield client, name


def test_a_real_bucket_tells_its_settings(bucket: tuple[Any, str], moto: str) -> None:
    client, name = bucket
    store = replace(make_store("moto", moto, Path("/"), name="vault"), url=f"s3://{name}/rec")
    reader = S3Reader(store)

    def found() -> Mapping[str, Found]:
        as_at_amazon = replace(store, endpoint=None, region="us-east-1")
        asked = reader.wire.ask
        each = s3_traits(as_at_amazon, lambda setting: asked(reader.calls.setting(setting)))
        return {one.text: one for one in each}

    before = found()
    assert before["the bucket lies in us-east-1"].health == "well"
    assert any("letting the public in" in text for text in before)
    assert not any("replicated" in text or "locks each" in text for text in before)
    blocks = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    client.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=blocks)
    retention = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 7}}
    client.put_object_lock_configuration(
        Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
    )
    after = found()
    assert after["the public is kept out, whatever a policy says"].health == "well"
    assert any("for 7 days (governance)" in text for text in after)
    assert any("for 7 days (governance)" in each.text for each in reader.traits())


def of_google(endpoint: str | None = None, **metadata: Any) -> dict[str, str]:
    answer = Answer(200, {}, json.dumps(metadata).encode())
    found = gcs_traits(Store("cold", "gs://acme-cold/100ms", endpoint=endpoint), answer)
    return {each.text: each.health for each in found}


def test_what_google_tells_of_a_bucket() -> None:
    well = {"publicAccessPrevention": "enforced"}
    assert of_google(location="EUROPE-WEST1", iamConfiguration=well) == {
        "the bucket lies in europe-west1": "well",
        "the public is kept out, whatever a policy says": "well",
    }
    assert list(of_google(iamConfiguration={"publicAccessPrevention": "inherited"}).values()) == [
        "unsure"
    ]
    kept = of_google(
        iamConfiguration=well,
        retentionPolicy={"retentionPeriod": "172800", "isLocked": True},
        defaultEventBasedHold=True,
    )
    assert any("for 2 days, and nobody can shorten that" in text for text in kept)
    assert any("event-based hold on each new object" in text for text in kept)
    for odd in ({"iamConfiguration": "x"}, {"retentionPolicy": {"retentionPeriod": "soon"}}):
        with pytest.raises(Nonsense):
            of_google(**odd)


def test_a_folder_that_everybody_can_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "vault"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    reader = LocalReader(Store("vault", f"file://{folder}"))
    for each in (*tmp_path.parents, tmp_path):
        if not each.stat().st_mode & 0o001:
            assert reader.traits() == (), "nobody gets there"
            return
    (said,) = reader.traits()
    assert "every user of this machine" in said.text
    folder.chmod(0o750)
    assert reader.traits() == ()
