"""What `retainer doctor` sees: who answers, what a delete means there, and rules of buckets that
stand against the policies."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import servers
from conftest import endpoint_of, make_store, make_writer
from project import POLICY, Project, make_project, video

from retainer.demo.standin import StandIn
from retainer.doctoring import of_lifecycle
from retainer.model.lifecycle import LifecycleRule
from retainer.model.setting import Store
from retainer.policy.files import policy_files
from retainer.policy.lint import load_policies
from retainer.stores.calls import Nonsense
from retainer.stores.lifecycles import gcs_lifecycle, s3_lifecycle

A, B = "a" * 24, "b" * 24
NOW = datetime(2026, 11, 29, tzinfo=UTC)


def looked(project: Project, *words: str, expect: int = 0) -> list[dict[str, Any]]:
    done = project.run("doctor", "--format", "json", *words, expect=expect)
    found = json.loads(done.stdout)
    assert found["is_well"] is (expect == 0)
    return list(found["found"])


def texts(found: list[dict[str, Any]], place: str) -> str:
    return "\n".join(each["text"] for each in found if each["place"] == place)


def test_a_healthy_project_is_well_and_nothing_is_changed(local: Project) -> None:
    local.copied_and_due(A, B)
    before = {name: local.content(name) for name in local.stores}
    state = sorted(path.name for path in (local.root / ".retainer" / "journal").iterdir())
    text = local.run("doctor").stdout
    assert "Nothing stands against a plan and an apply." in text
    for said in ("100ms: it answers", "vault: it can be listed", "gone for ever", "record: "):
        assert said in text
    assert before == {name: local.content(name) for name in local.stores}
    assert state == sorted(path.name for path in (local.root / ".retainer" / "journal").iterdir())


def test_each_place_can_be_looked_at_alone(local: Project) -> None:
    assert {each["place"] for each in looked(local, "--only", "vault")} == {"vault"}
    assert {each["place"] for each in looked(local, "--only", "100ms")} == {"100ms"}
    assert {each["place"] for each in looked(local, "--only", "record")} == {"record"}
    assert (
        "one of 100ms, record, uploads, vault"
        in local.run("doctor", "--only", "cellar", expect=64).stderr
    )


def test_what_cannot_be_reached_is_told_and_the_rest_is_looked_at(local: Project) -> None:
    local.copied_and_due(A, B)
    shutil.rmtree(local.stores["vault"].prefix)
    local.environment["HMS_SECRET"] = "wrong"
    found = looked(local, expect=1)
    assert [each["place"] for each in found if each["health"] == "bad"] == ["100ms", "vault"]
    assert "it can be listed" in texts(found, "uploads")


def test_a_clock_that_is_off_is_told(local: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from retainer.cli import process

    clock = process._clock
    monkeypatch.setattr(process, "_clock", lambda: clock() + timedelta(minutes=9))
    found = looked(local, "--only", "100ms", expect=1)
    assert "this machine's clock is 9 minutes ahead of its" in texts(found, "100ms")


def test_a_freeze_a_lock_and_a_lost_record_are_told(local: Project) -> None:
    local.copied_and_due(A, B)
    local.run("freeze", "--reason", "INC-42")
    shutil.rmtree(local.root / ".retainer" / "journal")
    content = json.dumps({"owner": "0th3r", "host": "elsewhere"}).encode()
    local.writer("uploads").create("_retainer/lock", iter([content]), len(content), {}, "x/y")
    found = looked(local, expect=1)
    assert "INC-42" in texts(found, "record")
    assert "another apply holds uploads (run 0th3r on elsewhere" in texts(found, "uploads")
    assert "cut or replaced: nothing is deleted there" in texts(found, "vault")


def test_a_second_person_who_cannot_be_is_told(local: Project) -> None:
    settings = (local.root / "retainer.yaml").read_text()
    settings = settings.replace("limits:\n", "limits:\n  second_person: true\n")
    (local.root / "retainer.yaml").write_text(settings)
    assert "nobody can approve" in texts(looked(local, expect=1), "approvals")
    (local.root / "allowed_signers").write_text("dana@acme ssh-ed25519 AAAA\n# a remark\n")
    assert "1 keys stand in allowed_signers" in texts(looked(local), "approvals")


# ── rules of buckets ──────────────────────────────────────────────────────────────────────────────


def s3_rules(text: str) -> tuple[LifecycleRule, ...]:
    root = f'<LifecycleConfiguration xmlns="x">{text}</LifecycleConfiguration>'
    return s3_lifecycle(ElementTree.fromstring(root))


RULE = "<Rule><ID>r</ID><Status>Enabled</Status>{}</Rule>"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<Expiration><Days>30</Days></Expiration>", "deletes everything after 30 days"),
        (
            "<Prefix>rec/</Prefix><Expiration><Days>1</Days></Expiration>",
            "deletes `rec/…` after 1 day",
        ),
        (
            "<Filter><Prefix>rec/</Prefix></Filter>"
            "<Expiration><Date>2027-01-01T00:00:00Z</Date></Expiration>",
            "deletes `rec/…` on 2027-01-01",
        ),
        (
            "<Filter><And><Prefix>a/</Prefix><Tag><Key>k</Key><Value>v</Value></Tag>"
            "<ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter>"
            "<Transition><Days>9</Days><StorageClass>GLACIER</StorageClass></Transition>",
            "moves to GLACIER `a/…` after 9 days (only where tag k is v and larger than 5 bytes)",
        ),
        (
            "<NoncurrentVersionExpiration><NoncurrentDays>7</NoncurrentDays>"
            "</NoncurrentVersionExpiration>",
            "deletes replaced versions of everything after 7 days",
        ),
        (
            "<Filter><Moon>full</Moon></Filter><Expiration><Days>2</Days></Expiration>",
            "deletes everything after 2 days (only where Moon)",
        ),
    ],
)
def test_a_rule_of_s3_is_read(text: str, words: str) -> None:
    assert [each.words for each in s3_rules(RULE.format(text))] == [words]


def test_rules_of_s3_that_strike_nothing_are_none() -> None:
    disabled = RULE.format("<Expiration><Days>1</Days></Expiration>").replace("Enabled", "Disabled")
    marker = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"
    abort = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
    assert s3_rules(disabled + RULE.format(marker) + RULE.format(abort)) == ()


@pytest.mark.parametrize("days", ["soon", "", "1.5"])
def test_a_rule_of_s3_that_cannot_be_read_is_nonsense(days: str) -> None:
    with pytest.raises(Nonsense):
        s3_rules(RULE.format(f"<Transition><Days>{days}</Days></Transition>"))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            {"action": {"type": "Delete"}, "condition": {"age": 30}},
            "deletes everything after 30 days",
        ),
        (
            {
                "action": {"type": "SetStorageClass", "storageClass": "ARCHIVE"},
                "condition": {"age": 9, "matchesPrefix": ["a/", "b/"]},
            },
            "moves to ARCHIVE `a/…` or `b/…` after 9 days",
        ),
        (
            {"action": {"type": "Delete"}, "condition": {"numNewerVersions": 3}},
            "deletes replaced versions of everything at any time",
        ),
        (
            {"action": {"type": "Delete"}, "condition": {"customTimeBefore": "2026-01-01"}},
            "deletes everything at any time (only where customTimeBefore 2026-01-01)",
        ),
    ],
)
def test_a_rule_of_google_is_read(rule: dict[str, Any], words: str) -> None:
    assert [each.words for each in gcs_lifecycle({"lifecycle": {"rule": [rule]}})] == [words]


def test_what_google_does_not_tell_is_no_rule_and_nonsense_is_nonsense() -> None:
    abort = {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 1}}
    assert gcs_lifecycle({}) == gcs_lifecycle({"lifecycle": {"rule": [abort]}}) == ()
    for odd in ({"lifecycle": "x"}, {"lifecycle": {"rule": ["x"]}}, {"lifecycle": {"rule": 3}}):
        with pytest.raises(Nonsense):
            gcs_lifecycle(odd)


def clashes(rule: LifecycleRule, tmp_path: Path, keep: str, **more: str) -> list[str]:
    """What a rule of the bucket comes to beside a keep in the vault."""
    (tmp_path / "policies").mkdir(exist_ok=True)
    hold = "holds: [{ id: LIT, why: x, match: { type: chat }, in: vault }]\n" if more else ""
    (tmp_path / "policies" / "p.yaml").write_text(
        "version: 1\nrules:\n  - { id: calls, match: all, keep: [{ in: vault, for: "
        f"{keep} }}] }}\n{hold}"
    )
    policies, wrong = load_policies(
        tmp_path, policy_files(tmp_path), "UTC", frozenset({"vault"}), frozenset()
    )
    assert not wrong
    store = Store("vault", "s3://acme-vault/rec")
    found = of_lifecycle(store, [rule], policies, NOW)
    return [each.text for each in found if each.health != "well"]


def test_a_rule_that_strikes_before_a_keep_ends_is_told_with_both_dates(tmp_path: Path) -> None:
    rule = LifecycleRule("r", "delete", days=30)
    (said,) = clashes(rule, tmp_path, "2y")
    assert "what is made now would go on 2026-12-29, and is to stay until 2028-11-" in said
    (forever,) = clashes(rule, tmp_path, "forever")
    assert "is to stay for ever" in forever


@pytest.mark.parametrize(
    ("days", "keep", "clash"),
    [(30, "30d", True), (32, "30d", False), (365, "1y", True), (368, "1y", False), (0, "1d", True)],
)
def test_a_day_is_enough_or_too_little(tmp_path: Path, days: int, keep: str, clash: bool) -> None:
    assert bool(clashes(LifecycleRule("r", "delete", days=days), tmp_path, keep)) is clash


def test_a_hold_stands_against_every_rule_and_an_archive_is_told(tmp_path: Path) -> None:
    rule = LifecycleRule("r", "delete", days=36500)
    assert ["LIT" in said for said in clashes(rule, tmp_path, "1d", hold="x")] == [True]
    moves = LifecycleRule("r", "move", days=1, to="GLACIER")
    assert "must be restored" in clashes(moves, tmp_path, "1y")[0]
    assert clashes(replace(moves, to="STANDARD_IA"), tmp_path, "1y") == []


@pytest.mark.parametrize("days", [3_650_000, 2_147_483_647])
def test_a_rule_that_strikes_beyond_every_calendar_stops_no_plan(tmp_path: Path, days: int) -> None:
    """S3 takes any number of days up to 2,147,483,647."""
    rule = LifecycleRule("r", "delete", days=days)
    assert clashes(rule, tmp_path, "7y") == []
    assert "9999-12-31" in clashes(rule, tmp_path, "forever")[0]


@pytest.mark.parametrize(
    ("prefixes", "concerns"),
    [((), True), (("rec/",), True), (("rec/chat/",), True), (("re",), True), (("other/",), False)],
)
def test_a_rule_concerns_a_store_whose_keys_it_may_name(
    prefixes: tuple[str, ...], concerns: bool
) -> None:
    assert LifecycleRule("r", "delete", prefixes).concerns("rec/") is concerns


@pytest.mark.parametrize("server", ["moto", "seaweedfs"])
def test_a_rule_of_a_real_bucket_is_found(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    endpoint = endpoint_of(server, request)
    project = make_project(tmp_path / "project", api, server, endpoint)
    bucket = f"lab-lifecycle-{server}"
    client = servers.s3_client(endpoint)
    client.create_bucket(Bucket=bucket)
    project.stores["vault"] = replace(project.stores["vault"], url=f"s3://{bucket}/rec")
    project.write(POLICY)
    assert "no rule of the bucket's own stands" in texts(looked(project), "vault")
    rule = {
        "ID": "tidy",
        "Status": "Enabled",
        "Filter": {"Prefix": "rec/"},
        "Expiration": {"Days": 30},
    }
    client.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": [rule]}
    )
    said = texts(looked(project, expect=1), "vault")
    assert (
        "the bucket's tidy deletes `rec/…` after 30 days, and calls (policies/rules.yaml:" in said
    )
    project.hosted(A, video(1))
    project.run("plan", "--out", "one.plan", expect=4)
    text = project.run("show", "one.plan").stdout
    assert "The bucket of vault deletes by rules of its own what is to be kept there" in text
    assert "keeps 2y: what is made now would go on" in " ".join(text.split())
    project.run("facts", "--out", "facts.duckdb")
    project.run("plan", "--facts", "facts.duckdb", "--out", "two.plan", expect=4)
    project.run("plan", "--lift", "lifecycle:vault", "--out", "three.plan")
    assert "and that was lifted" in project.run("show", "three.plan").stdout
    project.run("apply", "one.plan")  # it blocks nothing
    assert len(project.content("vault")) == 1


@pytest.mark.parametrize("server", ["fake_gcs", "strict_gcs"])
def test_a_bucket_of_google_that_has_no_rule_says_so(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store = make_store(server, endpoint_of(server, request), tmp_path)
    assert make_writer(store).lifecycle() == ()


def test_a_bucket_that_does_not_tell_is_not_certain(
    local: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retainer.stores.local import LocalReader

    monkeypatch.setattr(LocalReader, "lifecycle", lambda _: None)
    assert "by rules of its own cannot be read" in texts(looked(local), "vault")


def test_what_a_delete_means_is_told_where_versions_are_kept(
    moto: str, tmp_path: Path, api: StandIn
) -> None:
    project = make_project(tmp_path / "project", api, "moto", moto)
    bucket = "lab-doctor-versions"
    client = servers.s3_client(moto)
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    project.stores["vault"] = replace(project.stores["vault"], url=f"s3://{bucket}/rec")
    project.write(POLICY)
    project.hosted(A, video(1))
    assert "is hidden, and recoverable" in texts(looked(project), "vault")
