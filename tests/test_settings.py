"""`retainer.yaml` is found upward, read with its defaults, and every mistake in it is told with its
place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retainer.errors import PoliciesWrong
from retainer.model.price import Price
from retainer.model.setting import DEFAULT_LAYOUT, DeleteLimits, Settings, Store
from retainer.policy.codes import CODES
from retainer.settings import find_root, load_project, load_settings

THE_DEFAULT = f"the default is {DEFAULT_LAYOUT}"
URLS = "s3://bucket/prefix, gs://… or file:///folder"
PASSWORD = "hunter2hunter2"


@dataclass
class Read:
    settings: Settings | None
    wrong: list[Any]

    @property
    def codes(self) -> list[str]:
        return [each.code for each in self.wrong]

    @property
    def sound(self) -> Settings:
        assert self.wrong == []
        assert self.settings is not None
        return self.settings


Reader = Callable[[str], Read]


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    def reader(text: str) -> Read:
        (tmp_path / "retainer.yaml").write_text(text, newline="")
        return Read(*load_settings(tmp_path))

    return reader


def stores(*lines: str, more: str = "") -> str:
    return "version: 1\n" + more + "stores:\n" + "".join(f"  {line}\n" for line in lines)


def vault(item: str) -> str:
    """A file whose only store is this."""
    return stores(f"vault: {{ {item} }}")


def unmarked(text: str) -> tuple[str, tuple[int, ...]]:
    """The text without its marks « and », and the place between them: line, column, end line, end
    column."""
    place: list[int] = []
    for mark in "«»":
        before, found, _ = text.replace("«" if mark == "»" else "\0", "").partition(mark)
        if found:
            place += [before.count("\n") + 1, len(before) - before.rfind("\n")]
    return text.replace("«", "").replace("»", ""), tuple(place)


# ── Where it lies, and what it says when it says nothing ──────────────────────────────────────────


@pytest.mark.parametrize("below", ["", "a", "a/b/c"])
def test_the_settings_are_found_upward(tmp_path: Path, below: str) -> None:
    (tmp_path / "retainer.yaml").write_text("version: 1\n")
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    assert find_root(tmp_path / below) == tmp_path


def test_the_nearest_settings_count(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "a"):
        (folder / "retainer.yaml").write_text("version: 1\n")
    assert find_root(inner) == tmp_path / "a"


def test_a_folder_of_that_name_is_a_mistake_and_does_not_lead_further_up(tmp_path: Path) -> None:
    (tmp_path / "retainer.yaml").write_text("version: 1\n")
    (tmp_path / "a" / "retainer.yaml").mkdir(parents=True)
    assert find_root(tmp_path / "a") == tmp_path / "a"
    assert [mistake.code for mistake in load_settings(tmp_path / "a")[1]] == ["P215"]


@pytest.mark.parametrize(
    "name", ["Retainer.yaml", "retainer.yml", "retainer.json", "retainer.yaml.txt", "RETAINER.YAML"]
)
def test_a_name_that_only_looks_like_the_settings_ends_the_search(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "retainer.yaml").write_text("version: 1\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_text("version: 1\n")
    with pytest.raises(PoliciesWrong, match="is not read"):
        find_root(tmp_path / "a")


def test_settings_that_lead_nowhere_are_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "retainer.yaml").write_text("version: 1\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "retainer.yaml").symlink_to("/nowhere/retainer.yaml")
    assert find_root(tmp_path / "a") == tmp_path / "a"
    assert [mistake.code for mistake in load_settings(tmp_path / "a")[1]] == ["P215"]


@pytest.mark.parametrize(
    "url, allowed",
    [
        ("https://api.100ms.live/v2", True),
        ("http://127.0.0.1:8100/v2", True),
        ("http://localhost:1", True),
        ("http://[::1]:1", True),
        ("http://api.100ms.live/v2", False),
        ("http://10.0.0.1/v2", False),
        ("ftp://api.100ms.live", False),
        ("api.100ms.live", False),
    ],
)
def test_the_api_is_asked_over_tls_or_on_this_machine(
    read: Reader, url: str, allowed: bool
) -> None:
    assert [
        mistake.code for mistake in read(f"version: 1\nsource: {{ url: '{url}' }}\n").wrong
    ] == ([] if allowed else ["S310"])


def test_a_price_of_no_store_is_a_mistake(read: Reader) -> None:
    found = read(
        "version: 1\nstores: { vault: { url: 's3://vault' } }\nprices: { valt: { storage: 1 } }\n"
    )
    assert [(each.code, each.hint) for each in found.wrong] == [("S312", "did you mean `vault`?")]
    priced = read(
        "version: 1\nstores: { vault: { url: 's3://vault' } }\n"
        "prices: { vault: { storage: 0.004, put: 0.02, least_days: 90 } }\n"
    ).sound
    assert priced.price(priced.stores[0]) == Price(0.004, 0.02, least_days=90)


@pytest.mark.parametrize("state", ["policies", "./policies/x", "", '"a\\0b"'])
def test_the_record_lies_where_it_can(read: Reader, state: str) -> None:
    assert {mistake.code for mistake in read(f"version: 1\nstate: {state}\n").wrong} & {
        "S311",
        "P103",
    }


@pytest.mark.parametrize(
    "url", ["http://[::1", "https://api.100ms.live:99999", "https://api 100ms", "https://a\u2100b"]
)
def test_what_is_no_address_is_a_mistake(read: Reader, url: str) -> None:
    assert [
        mistake.code for mistake in read(f"version: 1\nsource: {{ url: '{url}' }}\n").wrong
    ] == ["S310"]


def test_a_word_allows_http_and_nothing_else(read: Reader) -> None:
    assert read(
        "version: 1\nsource: { url: 'http://10.0.0.1/v2', allow_http: true }\n"
    ).sound.source.allow_http
    assert [
        mistake.code
        for mistake in read("version: 1\nsource: { url: 'ftp://x', allow_http: true }\n").wrong
    ] == ["S310"]


@pytest.mark.parametrize(
    "endpoint",
    [
        "s3.example.com",
        "ftp://s3.example.com",
        "https://s3 example.com",
        "https://",
        "https://u:p@s3.example.com",
    ],
)
def test_an_endpoint_is_an_address(read: Reader, endpoint: str) -> None:
    wrong = read(
        f"version: 1\nstores: {{ vault: {{ url: 's3://bucket/x', endpoint: '{endpoint}' }} }}\n"
    ).wrong
    assert {"S303", "P209"} >= {mistake.code for mistake in wrong} != set()


ONE_PLACE = {
    "localhost and 127.0.0.1": (
        "s3://bucket/x, endpoint: 'http://127.0.0.1:8333'",
        "s3://bucket/x, endpoint: 'http://localhost:8333'",
    ),
    "a port that goes without saying": (
        "s3://bucket/x, endpoint: 'https://s3.example.com'",
        "s3://bucket/x, endpoint: 'https://S3.example.com:443/'",
    ),
    "the AWS endpoint spelt out": (
        "s3://bucket/x",
        "s3://bucket/x, endpoint: 'https://s3.eu-west-1.amazonaws.com'",
    ),
    "two spellings of AWS, one inside the other": (
        "s3://bucket/x/y, endpoint: 'https://s3.dualstack.eu-west-1.amazonaws.com'",
        "s3://bucket/x",
    ),
    "Google's endpoint spelt out": (
        "gs://bucket/x",
        "gs://bucket/x, endpoint: 'https://storage.googleapis.com'",
    ),
}


@pytest.mark.parametrize("one, other", ONE_PLACE.values(), ids=ONE_PLACE)
def test_two_names_of_one_place_are_one_place(read: Reader, one: str, other: str) -> None:
    assert [
        mistake.code
        for mistake in read(
            f"version: 1\nstores:\n  a: {{ url: {one} }}\n  b: {{ url: {other} }}\n"
        ).wrong
    ] == ["S301"]


def test_two_servers_on_one_machine_are_two(read: Reader) -> None:
    stores = [
        f"  {name}: {{ url: s3://bucket/x, endpoint: 'http://{host}' }}"
        for name, host in (("a", "127.0.0.1:1"), ("b", "localhost:2"))
    ]
    assert read("version: 1\nstores:\n" + "\n".join(stores)).wrong == []


def test_a_link_to_a_folder_is_that_folder_and_so_is_what_lies_in_it(
    read: Reader, tmp_path: Path
) -> None:
    (tmp_path / "real" / "in").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    for other in ("link", "link/in", "link/new"):
        stores = (
            f"version: 1\nstores:\n  a: {{ url: 'file://{tmp_path}/real' }}\n  b: {{ url: "
            f"'file://{tmp_path}/{other}' }}\n"
        )
        assert [mistake.code for mistake in read(stores).wrong] == ["S301"], other


def test_where_no_settings_are_there_is_no_root(tmp_path: Path) -> None:
    assert find_root(tmp_path) is None


def test_left_out_means_what_the_design_says(read: Reader) -> None:
    assert read("version: 1\n").sound == Settings()
    assert Settings().limits == DeleteLimits(count=500, percent=10, bytes=100_000_000_000)
    assert (Settings().timezone, Settings().plan_age_hours, Settings().state) == (
        "UTC",
        24.0,
        ".retainer",
    )
    assert (Settings().source.url, Settings().source.hosted) == ("https://api.100ms.live/v2", ())


def test_the_example_of_the_design_is_read(read: Reader) -> None:
    found = read(
        """\
version: 1
timezone: UTC
source:
  url: https://api.100ms.live/v2
  hosted: [ "s3://hms-prod-*" ]
stores:
  uploads: { url: s3://acme-raw/rec, region: ap-south-1, layout: 100ms }
  vault:   { url: s3://acme-vault/100ms, region: eu-west-1, storage_class: GLACIER_IR }
  cold:    { url: gs://acme-cold/100ms }
limits:   { deletes: { count: 500, percent: 10, bytes: 100GB }, plan_age: 24h }
state: .retainer
"""
    ).sound
    assert found.source.hosted == ("s3://hms-prod-*",)
    assert [store.name for store in found.stores] == ["uploads", "vault", "cold"]
    uploads, kept, cold = found.stores
    assert (uploads.written_by_100ms, uploads.region, uploads.layouts) == (True, "ap-south-1", ())
    assert (kept.bucket, kept.prefix, kept.storage_class, kept.layout) == (
        "acme-vault",
        "100ms/",
        "GLACIER_IR",
        DEFAULT_LAYOUT,
    )
    assert (cold.scheme, cold.region, cold.endpoint, cold.storage_class) == ("gs", None, None, None)
    assert (found.limits, found.plan_age_hours) == (DeleteLimits(), 24.0)


def test_every_setting_can_be_set(read: Reader) -> None:
    found = read(
        "version: 1\ntimezone: Asia/Kolkata\nsource: { url: http://127.0.0.1:8100/v2/, hosted: "
        "[s3://a, gs://b] }\n"
        "limits: { deletes: { count: 7, percent: 2.5, bytes: 3GiB }, plan_age: 36h }\nstate: "
        "/var/lib/retainer\n"
    ).sound
    assert (found.timezone, found.source.url, found.source.hosted) == (
        "Asia/Kolkata",
        "http://127.0.0.1:8100/v2",
        ("s3://a", "gs://b"),
    )
    assert (found.limits, found.plan_age_hours, found.state) == (
        DeleteLimits(7, 2.5, 3 * 2**30),
        36.0,
        "/var/lib/retainer",
    )


def test_the_store_of_a_name_is_found(read: Reader) -> None:
    found = read(vault("url: s3://bucket")).sound
    assert found.store("vault") == found.stores[0]
    assert found.store("cold") is None


# ── Stores ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url, bucket, prefix",
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://bucket/a/b", "bucket", "a/b/"),
        ("s3://bucket/a/b/", "bucket", "a/b/"),
        ("gs://my_bucket.example.com/x", "my_bucket.example.com", "x/"),
        ("s3://bucket/with blank/ü", "bucket", "with blank/ü/"),
        ("file:///srv/archive", "", "/srv/archive/"),
        ("file:///srv/archive/", "", "/srv/archive/"),
    ],
)
def test_a_url_is_taken_apart(read: Reader, url: str, bucket: str, prefix: str) -> None:
    (store,) = read(vault(f"url: '{url}'")).sound.stores
    assert (store.bucket, store.prefix) == (bucket, prefix)


@pytest.mark.parametrize(
    "url",
    [
        "azure://bucket/x",
        "oss://bucket/x",
        "https://bucket/x",
        "bucket/x",
        "vault",
        "",
        "s3:bucket",
        "//bucket/x",
    ],
)
def test_a_scheme_that_retainer_does_not_know_is_s303(read: Reader, url: str) -> None:
    plain, place = unmarked(vault(f"url: «'{url}'»"))
    (told,) = read(plain).wrong
    assert (told.code, told.hint) == ("S303", URLS)
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column) == place


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///x",
        "s3://b/x",
        "s3://ab",
        "s3://Bucket/x",
        "s3://buck et/x",
        "s3://bucket:8080/x",
        "s3://-bucket",
        "s3://bucket-",
        "s3://" + "a" * 230,
        "s3://bücket/x",
        "gs://",
        "s3://[x",
        "s3://[::1]/x",
        "s3://a℀b/x",
    ],
)
def test_a_url_without_a_valid_bucket_is_s303(read: Reader, url: str) -> None:
    assert read(vault(f"url: '{url}'")).codes == ["S303"]


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/../x",
        "s3://bucket/a/..",
        "s3://bucket/./x",
        "s3://bucket//x",
        "s3://bucket/a//b",
        "gs://bucket/a/./b",
        "file:///srv/../etc",
        "file:////srv",
    ],
)
def test_a_url_that_goes_astray_in_its_path_is_s303(read: Reader, url: str) -> None:
    assert read(vault(f"url: '{url}'")).codes == ["S303"]


@pytest.mark.parametrize(
    "url", ["file:///", "file://", "file://host/srv", "file:srv", "file:/srv", "file://srv"]
)
def test_a_folder_that_is_not_absolute_is_s303(read: Reader, url: str) -> None:
    assert read(vault(f"url: '{url}'")).codes == ["S303"]


def test_a_folder_that_is_not_absolute_is_s303_beside_a_hosted_bucket(read: Reader) -> None:
    assert read(
        stores(
            "vault: { url: 'file:srv' }",
            "cold: { url: 'file:x' }",
            more="source: { hosted: [s3://hms] }\n",
        )
    ).codes == ["S303", "S303"]


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/x?a=b",
        "s3://bucket?a=b",
        "s3://bucket/x#a",
        "s3://user@bucket/x",
        "s3://bucket/x?",
        "s3://bucket/x#",
    ],
)
def test_a_url_with_a_query_a_fragment_or_a_user_is_s303(read: Reader, url: str) -> None:
    assert read(vault(f"url: '{url}'")).codes == ["S303"]


@pytest.mark.parametrize("url", ["S3://bucket/x", "GS://bucket", "FILE:///srv/x"])
def test_a_scheme_in_capitals_is_refused_or_read_as_the_scheme_it_is(
    read: Reader, url: str
) -> None:
    found = read(vault(f"url: {url}"))
    assert found.codes == ["S303"] or (
        found.settings is not None and found.settings.stores[0].scheme in ("s3", "gs", "file")
    )


@pytest.mark.parametrize("url", [r"s3://buck\tet/x", r"s3://buck\net/x", r"s3://buck\0et/x"])
def test_a_control_character_in_the_name_of_a_bucket_is_s303(read: Reader, url: str) -> None:
    assert read(vault(f'url: "{url}"')).codes == ["S303"]


@given(
    st.one_of(
        st.text(max_size=20),
        st.builds(
            "{}{}{}".format,
            st.sampled_from(["s3:", "gs://", "file:///", "s3://b", "file:", "S3://"]),
            st.text(alphabet="ab/.:@?#[]%\\℀é \t", max_size=8),
            st.text(max_size=3),
        ),
    )
)
@example("s3://[x")
def test_no_url_makes_reading_fail(tmp_path_factory: pytest.TempPathFactory, url: str) -> None:
    folder = tmp_path_factory.mktemp("urls")
    text = '"' + "".join(f"\\U{ord(letter):08x}" for letter in url) + '"'
    (folder / "retainer.yaml").write_text(
        f"version: 1\nsource: {{ hosted: [s3://hms] }}\nstores: {{ a: {{ url: {text} }}, b: {{ "
        f"url: {text} }} }}\n"
    )
    _, wrong = load_settings(folder)
    assert wrong


@pytest.mark.parametrize(
    "one, other",
    [
        ("s3://bucket/a", "s3://bucket/a"),
        ("s3://bucket/a", "s3://bucket/a/"),
        ("s3://bucket/a", "s3://bucket/a/b"),
        ("s3://bucket", "s3://bucket/a"),
        ("s3://bucket/a/b/c", "s3://bucket/a"),
        ("gs://bucket", "gs://bucket"),
        ("file:///srv", "file:///srv/a"),
        ("file:///srv/a/b", "file:///srv/a"),
    ],
)
def test_a_store_inside_another_is_s301(read: Reader, one: str, other: str) -> None:
    plain, place = unmarked(stores(f"vault: {{ url: {one} }}", f"cold: {{ url: «{other}» }}"))
    (told,) = read(plain).wrong
    assert (told.code, told.hint) == ("S301", "give each a prefix of its own")
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column) == place
    assert "`cold` and `vault`" in told.message


@pytest.mark.parametrize(
    "one, other",
    [
        ("url: s3://bucket/a", "url: s3://bucket/ab"),
        ("url: s3://bucket/a", "url: s3://other/a"),
        ("url: s3://bucket/a", "url: gs://bucket/a"),
        ("url: s3://bucket/a/b", "url: s3://bucket/a/c"),
        ("url: file:///srv/a", "url: file:///srv/ab"),
        ("url: s3://bucket/a", "url: s3://bucket/a, endpoint: 'http://127.0.0.1:8333'"),
        ("url: s3://bucket, endpoint: 'http://a:1'", "url: s3://bucket/x, endpoint: 'http://b:1'"),
    ],
)
def test_stores_side_by_side_are_fine(read: Reader, one: str, other: str) -> None:
    assert len(read(stores(f"vault: {{ {one} }}", f"cold: {{ {other} }}")).sound.stores) == 2


def test_the_same_endpoint_is_the_same_with_a_slash_at_its_end(read: Reader) -> None:
    found = read(
        stores(
            "vault: { url: s3://bucket, endpoint: 'http://h:1' }",
            "cold: { url: s3://bucket/x, endpoint: 'http://h:1/' }",
        )
    )
    assert found.codes == ["S301"]


def test_the_region_makes_no_other_bucket(read: Reader) -> None:
    assert read(
        stores(
            "vault: { url: s3://bucket, region: a-1 }", "cold: { url: s3://bucket/x, region: b-1 }"
        )
    ).codes == ["S301"]


def test_of_three_stores_in_one_another_each_pair_is_told(read: Reader) -> None:
    assert (
        read(
            stores(
                "a: { url: s3://bucket }",
                "b: { url: s3://bucket/x }",
                "c: { url: s3://bucket/x/y }",
            )
        ).codes
        == ["S301"] * 3
    )


@pytest.mark.parametrize(
    "hosted",
    ["s3://hms-prod-*", "s3://hms-prod-eu", "s3://hms-prod-eu/", "s3://hms-????-eu", "s3://*"],
)
def test_a_store_in_a_hosted_bucket_is_s302(read: Reader, hosted: str) -> None:
    plain, place = unmarked(
        stores("vault: { url: «s3://hms-prod-eu/x» }", more=f"source: {{ hosted: ['{hosted}'] }}\n")
    )
    (told,) = read(plain).wrong
    assert told.code == "S302"
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column) == place


@pytest.mark.parametrize("hosted", ["s3://hms-prod-*", "gs://acme", "s3://acm", "s3://ACME"])
def test_a_store_in_another_bucket_than_the_hosted_is_fine(read: Reader, hosted: str) -> None:
    assert (
        read(
            stores("vault: { url: s3://acme/x }", more=f"source: {{ hosted: ['{hosted}'] }}\n")
        ).wrong
        == []
    )


@pytest.mark.parametrize(
    "hosted", ["s3://hms-prod-eu/beam", "hms-prod-*", "s3://*/x", "s3://", "s3://a/b/"]
)
def test_a_hosted_pattern_that_no_bucket_can_match_is_s308(read: Reader, hosted: str) -> None:
    plain, place = unmarked(
        stores(
            "vault: { url: s3://acme/x }",
            more=f"source: {{ hosted: ['s3://hms-*', «'{hosted}'»] }}\n",
        )
    )
    (told,) = read(plain).wrong
    assert told.code == "S308"
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column) == place


@pytest.mark.parametrize("name", ["hosted", "elsewhere"])
def test_a_reserved_name_is_no_name_for_a_store(read: Reader, name: str) -> None:
    plain, place = unmarked(stores(f"«{name}»: {{ url: s3://bucket }}"))
    (told,) = read(plain).wrong
    assert (told.code, told.hint) == ("P210", "give it another name")
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column) == place


@pytest.mark.parametrize("name", ["'a b'", "-a", "a/b", '"a\'b"', "''", "a" * 65, "ü"])
def test_a_store_has_a_name_like_an_id(read: Reader, name: str) -> None:
    assert read(stores(f"{name}: {{ url: s3://bucket }}")).codes == ["P105"]


# ── Layouts ───────────────────────────────────────────────────────────────────────────────────────


def test_the_default_layout_stays_known_under_another_one(read: Reader) -> None:
    (store,) = read(
        vault(
            "url: s3://bucket, layout: '{asset_id}', layouts: ['{type}/{asset_id}', "
            "'{asset_id}/x', '{type}/{asset_id}']"
        )
    ).sound.stores
    assert (store.layout, store.layouts) == (
        "{asset_id}",
        ("{type}/{asset_id}", "{asset_id}/x", DEFAULT_LAYOUT),
    )


@pytest.mark.parametrize(
    "layout, hint, says",
    [
        ("{type}/{filename}", THE_DEFAULT, "does not contain {asset_id}"),
        ("x", THE_DEFAULT, "does not contain {asset_id}"),
        ("", THE_DEFAULT, "does not contain {asset_id}"),
        ("{asset_id}/{room}", "did you mean `{room_id}`?", "`{room}`"),
        ("{asset_id}/{date}", None, "`{date}`"),
        ("{asset_id}/{}", None, "`{}`"),
        ("{asset_id}/{YYYY}", "did you mean `{yyyy}`?", "`{YYYY}`"),
        ("/{asset_id}", THE_DEFAULT, "relative key"),
        ("{asset_id}/", THE_DEFAULT, "relative key"),
        ("a//{asset_id}", THE_DEFAULT, "relative key"),
        ("../{asset_id}", THE_DEFAULT, "relative key"),
        ("_retainer/{asset_id}", THE_DEFAULT, "relative key"),
    ],
)
def test_what_is_no_layout_is_s304_where_it_stands(
    read: Reader, layout: str, hint: str | None, says: str
) -> None:
    plain, place = unmarked(vault(f"url: s3://bucket, layout: «'{layout}'»"))
    (told,) = read(plain).wrong
    assert (told.code, told.hint) == ("S304", hint)
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column) == place
    assert says in told.message


def test_a_field_whose_brace_is_not_closed_is_s304(read: Reader) -> None:
    assert read(vault("url: s3://bucket, layout: '{asset_id}/{type'")).codes == ["S304"]


def test_an_old_layout_is_judged_as_well(read: Reader) -> None:
    plain, place = unmarked(vault("url: s3://bucket, layouts: ['{asset_id}', «'{type}'»]"))
    (told,) = read(plain).wrong
    assert told.code == "S304"
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column) == place


def test_each_mistake_of_a_layout_is_told(read: Reader) -> None:
    assert read(vault("url: s3://bucket, layout: '/{room}'")).codes == ["S304"] * 3


def test_100ms_is_no_layout_of_earlier_days(read: Reader) -> None:
    assert "S304" in read(vault("url: s3://bucket, layouts: [100ms]")).codes


# ── Time zone, sizes, limits ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/Argentina/Buenos_Aires", "Etc/GMT+5"]
)
def test_a_time_zone_has_its_iana_name(read: Reader, zone: str) -> None:
    assert read(f"version: 1\ntimezone: {zone}\n").sound.timezone == zone


@pytest.mark.parametrize(
    "zone, hint",
    [
        ("Europe/Berln", "did you mean `Europe/Berlin`?"),
        ("europe/berlin", "did you mean `Europe/Berlin`?"),
        ("qqqqqqq", "IANA names, such as Europe/Berlin"),
        ("../../etc/passwd", None),
        ("/etc/localtime", None),
        ("''", None),
        ("Europe", None),
        ('"a\\0b"', None),
        ("a" * 5000, None),
        ("+02:00", None),
    ],
)
def test_what_is_no_time_zone_is_s305_where_it_stands(
    read: Reader, zone: str, hint: str | None
) -> None:
    plain, place = unmarked(f"version: 1\ntimezone: «{zone}»\n")
    (told,) = read(plain).wrong
    assert told.code == "S305"
    assert hint is None or told.hint == hint
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column) == place


@pytest.mark.parametrize(
    "written, size",
    [
        ("0", 0),
        ("500", 500),
        ("500B", 500),
        ("1KB", 1000),
        ("2MB", 2 * 10**6),
        ("100GB", 10**11),
        ("1TB", 10**12),
        ("1PB", 10**15),
        ("1KiB", 1024),
        ("2MiB", 2**21),
        ("3GiB", 3 * 2**30),
        ("2TiB", 2**41),
        ("1PiB", 2**50),
        ("100 GB", 10**11),
        ("100gb", 10**11),
        ("'5'", 5),
    ],
)
def test_a_size_is_read(read: Reader, written: str, size: int) -> None:
    assert (
        read(f"version: 1\nlimits: {{ deletes: {{ bytes: {written} }} }}\n").sound.limits.bytes
        == size
    )


@pytest.mark.parametrize(
    "written",
    [
        "1.5TB",
        "-1",
        "lots",
        "1XB",
        "1G",
        "GB",
        "1e9",
        "0x10",
        "1,000",
        "[1]",
        "100GBs",
        "true",
        "9" * 5000,
        "٣",
    ],
)
def test_what_is_no_size_is_s306_where_it_stands(read: Reader, written: str) -> None:
    plain, place = unmarked(f"version: 1\nlimits:\n  deletes:\n    bytes: «{written}»\n")
    (told,) = read(plain).wrong
    assert told.code == "S306"
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column) == place


@pytest.mark.parametrize(
    "limit",
    [
        "count: -1",
        "count: 1.5",
        "count: many",
        "count: true",
        "percent: -1",
        "percent: 100.1",
        "percent: few",
        "percent: .nan",
    ],
)
def test_a_limit_that_is_no_limit_is_p103(read: Reader, limit: str) -> None:
    assert read(f"version: 1\nlimits: {{ deletes: {{ {limit} }} }}\n").codes == ["P103"]


@pytest.mark.parametrize("percent", [0, 0.5, 100])
def test_a_percentage_lies_between_0_and_100(read: Reader, percent: float) -> None:
    assert (
        read(f"version: 1\nlimits: {{ deletes: {{ percent: {percent} }} }}\n").sound.limits.percent
        == percent
    )


@pytest.mark.parametrize(
    "written, hours", [("1h", 1.0), ("36h", 36.0), ("PT90M", 1.5), ("2d", 48.0), ("1w", 168.0)]
)
def test_the_age_of_a_plan_is_read_in_hours(read: Reader, written: str, hours: float) -> None:
    assert read(f"version: 1\nlimits: {{ plan_age: {written} }}\n").sound.plan_age_hours == hours


@pytest.mark.parametrize("written", ["1m", "0h", "1.5d", "-1h", "soon"])
def test_an_age_that_is_no_period_is_p208(read: Reader, written: str) -> None:
    assert read(f"version: 1\nlimits: {{ plan_age: {written} }}\n").codes == ["P208"]


@pytest.mark.parametrize("written", ["forever", "1000y"])
def test_a_plan_has_an_age_that_a_date_can_be_made_of(read: Reader, written: str) -> None:
    found = read(f"version: 1\nlimits: {{ plan_age: {written} }}\n")
    if not found.wrong and found.settings:
        timedelta(hours=found.settings.plan_age_hours)


# ── Shape ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text, code, hint",
    [
        ("version: 1\n«timezon»: UTC\n", "P101", "did you mean `timezone`?"),
        ("version: 1\n«tz»: UTC\n", "P101", "did you mean `timezone`?"),
        (vault("url: s3://bucket, «storageClass»: X"), "P101", "did you mean `storage_class`?"),
        (vault("url: s3://bucket, «prefix»: X"), "P101", "did you mean `url`?"),
        ("version: 1\nsource: { «hostd»: [] }\n", "P101", "did you mean `hosted`?"),
        ("version: 1\nlimits: { deletes: { «cuont»: 1 } }\n", "P101", "did you mean `count`?"),
        (
            "version: 1\n«rules»: []\n",
            "P101",
            "known here: version, timezone, source, stores, limits, prices, state",
        ),
        ("«stores: {}\n", "P106", "make it the first line of the file"),
        ("version: «2»\n", "P106", "write `version: 1`"),
        (stores("«vault»: {}"), "P102", None),
        ("version: 1\nsource: { hosted: «s3://hms» }\n", "P103", None),
        ("version: 1\nstores: «[]»\n", "P103", "write a value, or leave the key out"),
        ("version: 1\ntimezone: «~»\n", "P103", "write a value, or leave the key out"),
        ("version: 1\nstate: x\n«state»: y\n", "Y002", "remove one"),
        ("version: 1\n«\tstate: x\n", "Y001", None),
        ("«", "Y008", "begin with `version: 1`"),
        ("«- a\n", "Y008", "begin with `version: 1`"),
    ],
)
def test_a_mistake_of_shape_is_told_with_its_place(
    read: Reader, text: str, code: str, hint: str | None
) -> None:
    plain, place = unmarked(text)
    (told,) = read(plain).wrong
    assert (told.code, told.hint, told.file) == (code, hint, "retainer.yaml")
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column)[
        : len(place)
    ] == place


def test_every_mistake_is_told_in_one_run(read: Reader) -> None:
    found = read(
        stores(
            "a: { url: s3://bucket, layout: x }",
            "b: { url: s3://bucket/x, regin: y }",
            "c: { url: azure://c }",
            "d: { url: s3://hms-x }",
            more=(
                "timezone: nowhere\nsource: { hosted: ['s3://hms-*'] }\nlimits: { deletes: { "
                "bytes: big }, plan_age: 1m }\n"
            ),
        )
    )
    assert set(found.codes) == {"S301", "S302", "S303", "S304", "S305", "S306", "P101", "P208"}


@pytest.mark.parametrize(
    "item, says",
    [
        ("url: file:///data, «storage_class»: X", "a folder has no `storage_class`"),
        ("url: file:///data, «lock»: governance", "a folder has no `lock`"),
        ("url: file:///data, «kms_key»: X", "a folder has no `kms_key`"),
        ("url: gs://bucket, «tags»: { a: b }", "have no tags"),
        ("url: s3://bucket, layout: 100ms, «cache_control»: no-store", "would never apply"),
        ("url: s3://bucket, «tags»: { a: 'b & c' }", "`b & c`"),
    ],
)
def test_a_setting_that_a_kind_of_store_does_not_have_is_s309(
    read: Reader, item: str, says: str
) -> None:
    text, place = unmarked(vault(item))
    (told,) = read(text).wrong
    assert (
        told.code,
        (told.span.line, told.span.column, told.span.end_line, told.span.end_column),
    ) == ("S309", place)
    assert says in told.message


@pytest.mark.parametrize(
    "url, says",
    [
        ("azure://account/container", "read through 100ms"),
        ("oss://bucket/x", "needs an `endpoint`"),
    ],
)
def test_a_cloud_without_its_endpoint_or_without_a_client_is_no_store(
    read: Reader, url: str, says: str
) -> None:
    (told,) = read(vault(f"url: {url}")).wrong
    assert told.code == "S303" and says in told.message


def test_how_copies_lie_can_be_set(read: Reader) -> None:
    (store,) = read(
        vault(
            "url: oss://bucket/x, endpoint: https://oss.example, storage_class: IA, "
            "storage_class_from: 1MiB, kms_key: k, "
            "tags: { team: legal, no: 007 }, cache_control: no-store, lock: compliance"
        )
    ).sound.stores
    assert (store.scheme, store.bucket, store.prefix, store.lock) == (
        "oss",
        "bucket",
        "x/",
        "compliance",
    )
    assert (store.tags, store.kms_key, store.cache_control) == (
        (("team", "legal"), ("no", "007")),
        "k",
        "no-store",
    )
    sizes = (
        ("a", 1 << 20),
        ("a", (1 << 20) - 1),
        ("_retainer/lock", 1 << 30),
        ("a/manifest.json", 1 << 30),
    )
    assert [store.class_of(key, size) for key, size in sizes] == ["IA", None, None, None]


def test_a_keep_for_ever_in_a_store_that_locks_is_p214(tmp_path: Path) -> None:
    (tmp_path / "retainer.yaml").write_text(
        stores("vault: { url: s3://bucket, lock: governance }", "cold: { url: s3://other }")
    )
    (tmp_path / "policies").mkdir()
    rules = (
        "version: 1\nrules:\n  - { id: a, match: all, keep: [ { in: cold, for: forever }, { "
        "in: vault, for: «forever» } ] }\n"
    )
    text, place = unmarked(rules)
    (tmp_path / "policies" / "a.yaml").write_text(text)
    _, _, (told,) = load_project(tmp_path)
    assert (
        told.code,
        (told.span.line, told.span.column, told.span.end_line, told.span.end_column),
    ) == ("P214", place)


def test_every_code_of_the_settings_is_tested_here() -> None:
    here = Path(__file__).read_text()
    assert [
        code for code in CODES if code.startswith("S") and code not in here
    ] == []  # S307 is told by the command line


# ── Credentials ───────────────────────────────────────────────────────────────────────────────────

CARELESS = {
    "a token beside the url": (
        f"version: 1\nsource:\n  url: https://api.100ms.live/v2\n  token: {PASSWORD}\n",
        PASSWORD,
    ),
    "a token on one line with another mistake": (
        f"version: 1\nsource: {{ token: {PASSWORD}, hostd: [] }}\n",
        PASSWORD,
    ),
    "keys of a store": (
        vault(f"url: s3://bucket, access_key: a, secret_key: {PASSWORD}"),
        PASSWORD,
    ),
    "a password in a store's url": (vault(f"url: s3://key:{PASSWORD}@bucket/x"), PASSWORD),
    "a password in an endpoint": (
        vault(f"url: s3://bucket/x, endpoint: 'http://key:{PASSWORD}@h:1'"),
        PASSWORD,
    ),
    "a password in the source's url": (
        f"version: 1\nsource: {{ url: 'https://key:{PASSWORD}@api.100ms.live/v2' }}\n",
        PASSWORD,
    ),
    "a signed url": (vault("url: 's3://bucket/x?X-Amz-Signature=0123abcd'"), "0123abcd"),
    "a key in place of a time zone": (
        "version: 1\ntimezone: AKIAIOSFODNN7EXAMPLE\n",
        "AKIAIOSFODNN7EXAMPLE",
    ),
    "a key as a store's name": (
        stores("AKIAIOSFODNN7EXAMPLE: { url: azure://x }"),
        "AKIAIOSFODNN7EXAMPLE",
    ),
    "a key in a layout": (
        vault("url: s3://bucket, layout: 'AKIAIOSFODNN7EXAMPLE'"),
        "AKIAIOSFODNN7EXAMPLE",
    ),
}


@pytest.mark.parametrize("text, secret", CARELESS.values(), ids=CARELESS)
def test_no_complaint_repeats_a_credential(read: Reader, text: str, secret: str) -> None:
    found = read(text)
    assert "P209" in found.codes
    assert [
        part
        for each in found.wrong
        for part in (each.message, each.hint or "", each.text)
        if secret in part
    ] == []


# ── A project ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str, str], tuple[Settings, list[str]]]:
    def loader(settings: str, policy: str) -> tuple[Settings, list[str]]:
        (tmp_path / "policies").mkdir(exist_ok=True)
        (tmp_path / "retainer.yaml").write_text(settings)
        (tmp_path / "policies" / "a.yaml").write_text(policy)
        found, _, wrong = load_project(tmp_path)
        return found, [f"{each.file} {each.code}" for each in wrong]

    return loader


RULE = "version: 1\nrules:\n  - id: a\n    match: all\n    keep: [{ in: vault, for: 1y }]\n"


def test_the_project_of_this_repository_is_sound() -> None:
    assert load_project(Path(__file__).parents[1])[2] == []


def test_rules_name_the_stores_of_the_settings(
    project: Callable[[str, str], tuple[Settings, list[str]]],
) -> None:
    assert project(vault("url: s3://bucket"), RULE)[1] == []
    assert project(stores("valut: { url: s3://bucket }"), RULE)[1] == ["policies/a.yaml P202"]


def test_mistakes_of_the_settings_and_of_the_policies_are_told_in_one_run(
    project: Callable[[str, str], tuple[Settings, list[str]]],
) -> None:
    assert project(
        stores("vault: { url: azure://x }", more="timezone: nowhere\n"), RULE.replace("1y", "1m")
    )[1] == ["retainer.yaml S305", "retainer.yaml S303", "policies/a.yaml P208"]


def test_settings_that_cannot_be_read_do_not_hide_the_mistakes_of_the_policies(
    project: Callable[[str, str], tuple[Settings, list[str]]],
) -> None:
    found, told = project("version: 1\nstores: [a}\n", RULE.replace("1y", "1m"))
    assert (found, told) == (Settings(), ["retainer.yaml Y001", "policies/a.yaml P208"])


def test_a_bad_time_zone_does_not_hide_the_stores(
    project: Callable[[str, str], tuple[Settings, list[str]]],
) -> None:
    found, told = project(stores("vault: { url: s3://bucket }", more="timezone: nowhere\n"), RULE)
    assert ([store.name for store in found.stores], told) == (["vault"], ["retainer.yaml S305"])


@pytest.mark.parametrize(
    "text",
    [
        "- a\n",
        "hello\n",
        "5\n",
        "null\n",
        "",
        "version: [1]\n",
        "version: 1\nstores: 5\n",
        "version: 1\nlimits: []\n",
    ],
)
def test_settings_of_any_shape_are_told_and_not_failed_on(
    project: Callable[[str, str], tuple[Settings, list[str]]], text: str
) -> None:
    assert project(text, RULE)[1][0].startswith("retainer.yaml ")


def test_a_store_without_slashes_at_its_end_is_the_same_store() -> None:
    assert Store("a", "s3://bucket/x").prefix == Store("a", "s3://bucket/x/").prefix == "x/"


# ── examples ──────────────────────────────────────────────────────────────────────────────────────

STORES = Path(__file__).parents[1] / "examples" / "stores"


@pytest.mark.parametrize("example", sorted(path.stem for path in STORES.glob("*.yaml")))
def test_an_example_of_a_store_is_one_that_retainer_takes(example: str, tmp_path: Path) -> None:
    shutil.copy(STORES / f"{example}.yaml", tmp_path / "retainer.yaml")
    settings, mistakes = load_settings(tmp_path)
    assert settings is not None and mistakes == []
    assert settings.stores


@pytest.mark.parametrize("calls", [0, 65, "many"])
def test_the_calls_to_100ms_at_once_are_a_number_from_1_to_64(
    tmp_path: Path, calls: object
) -> None:
    (tmp_path / "retainer.yaml").write_text(f"version: 1\nsource: {{ concurrency: {calls} }}\n")
    _, mistakes = load_settings(tmp_path)
    assert len(mistakes) == 1 and "concurrency" in str(mistakes[0])


def test_every_maker_that_is_asked_for_has_an_example() -> None:
    makers = {"cloudflare-r2", "backblaze-b2", "wasabi", "minio", "ceph", "alibaba-oss", "swift"}
    assert makers <= {path.stem for path in STORES.glob("*.yaml")}


@pytest.mark.parametrize(
    "store, said",
    [
        ("{ url: file:///tmp/x, concurrency: 4 }", "a folder has no `concurrency`"),
        ("{ url: s3://acme/b, concurrency: 0 }", "1"),
        ("{ url: s3://acme/b, concurrency: 257 }", "256"),
        ("{ url: s3://acme/b, impersonate: x@y.iam.gserviceaccount.com }", "only gs:// has"),
        ("{ url: gs://acme/b, profile: x }", "only s3:// and oss:// have `profile`"),
    ],
)
def test_a_setting_of_another_kind_of_store_is_a_mistake(
    tmp_path: Path, store: str, said: str
) -> None:
    (tmp_path / "retainer.yaml").write_text(f"version: 1\nstores: {{ v: {store} }}\n")
    _, mistakes = load_settings(tmp_path)
    assert len(mistakes) == 1 and said in mistakes[0].message
