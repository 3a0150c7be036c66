"""One page in every form: what it says, that nothing from outside becomes more than text, and that
it stays short where it must."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
from pages import PAGES, READING

from retainer.views.html import MOST_ROWS, html
from retainer.views.markdown import escaped, markdown
from retainer.views.page import (
    Bars,
    Block,
    Column,
    Command,
    Document,
    Excerpt,
    Facts,
    Fold,
    Note,
    Prose,
    Section,
    Table,
)
from retainer.views.terminal import Page, terminal
from retainer.views.units import since, through

GOLDEN = Path(__file__).parent / "golden"
ZONE = READING.zone
HEX = "6544d1e2f3a4b5c6d7e8f9"
EVIL = "<script>alert(1)</script> & @acme/legal #12 https://evil.example [l](javascript:x) ![i](u) | $x$ `a` **b**"


def everything(rows: int = 3) -> Document:
    """A page with every kind of block."""
    table = Table(
        "Copies that go",
        (
            Column("recording", "id"),
            Column("size", "bytes"),
            Column("number", "count"),
            Column("made", "moment"),
            Column("due since", "since"),
            Column("why"),
        ),
        tuple(
            (
                f"{HEX}{number:02x}",
                1_630_000 * (number + 1),
                1200 + number,
                datetime(2026, 11, 1, 12, 30, tzinfo=UTC),
                datetime(2026, 11, 19, 18, 30, tzinfo=UTC),
                "a reason of some length that has to be folded on a terminal of eighty columns",
            )
            for number in range(rows)
        ),
        more=7,
        all_at="`retainer show PLAN` lists them",
        is_list=True,
    )
    return Document(
        "Plan 0123456789abcdef",
        (
            Note("-", "bad", "Delete 3 copies, 4.89 MB, 1 the last copy anywhere."),
            Note("!", "worry", "Its deletes are held back.", "`--lift count:rule:raw` lifts it"),
        ),
        (
            Section(
                "Deletes",
                (
                    Note("-", "bad", "3 copies in vault", parts=(table,)),
                    Note("?", "unsure", "One is not certain."),
                    Note("+", "good", "12 copies"),
                    Prose("(with the deletes of the last 24 hours)", is_aside=True),
                ),
                "What is common is said once.",
            ),
            Bars(
                "Bytes by class",
                "bytes",
                ("main", "this change"),
                (("STANDARD", (2e12, 1.5e12)), ("GLACIER_IR", (4e11, 9e11))),
            ),
            Fold("Totals", (Facts((("fingerprint", "ab" * 32), ("policies", "commit 1234"))),)),
            Excerpt(3, "    filter: { type: chat }", 5, 6),
            Command("retainer apply today.plan --approve-deletes 3", "before 2026-11-30"),
        ),
        about="as of 2026-11-29 08:30 IST",
        mark="retainer:test key=x",
        foot="retainer 0.1.0 · exit 3",
    )


FORMS = {
    "text-80": lambda page: terminal(page, Page(80), READING),
    "text-160": lambda page: terminal(page, Page(160), READING),
    "text-80-colour": lambda page: terminal(page, Page(80, True), READING),
    "markdown": lambda page: markdown(page, READING),
    "html": lambda page: html(page, READING),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("thing", ["everything", *PAGES])
def test_a_page_looks_as_it_was_looked_at(
    thing: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`RETAINER_WRITE_GOLDEN=1` writes them anew; look at them before they are committed."""
    monkeypatch.setitem(sys.modules, "vl_convert", None)  # a drawing is its library's
    path = GOLDEN / f"{thing}.{form}.txt"
    text = FORMS[form](PAGES[thing]() if thing in PAGES else everything())
    if form == "html":  # what every page has alike is in the first one
        text = text if thing == "everything" else text.partition("<main>")[2]
    if os.environ.get("RETAINER_WRITE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_every_kind_of_block_is_in_the_page_of_this_test() -> None:
    def kinds(blocks: tuple[Block, ...]) -> set[type]:
        found = {type(block) for block in blocks}
        for block in blocks:
            match block:
                case Note():
                    found |= kinds(block.parts)
                case Section() | Fold():
                    found |= kinds(block.blocks)
        return found

    assert kinds(everything().blocks) == set(get_args(Block))


@pytest.mark.parametrize("width", [40, 60, 80, 160])
def test_no_id_is_ever_cut_and_no_colour_carries_meaning(width: int) -> None:
    plain = terminal(everything(), Page(width), READING)
    painted = terminal(everything(), Page(width, True), READING)
    assert all(f"{HEX}{number:02x}" in plain for number in range(3))
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == plain
    assert "\x1b[" in painted and "\x1b" not in plain
    whole = ("fingerprint", "Next: ")
    for line in plain.splitlines():
        assert len(line) <= width or line.strip().startswith(whole) or " " not in line.strip(), line


@pytest.mark.parametrize(
    "text",
    [
        *("@acme/legal", "#12", "GH#3", "https://evil.example", "www.evil.example"),
        *("[l](javascript:x)", "![i](u)", "<b>", "&lt;", "a|b", "$x$", "**b**", "_i_", "~~s~~"),
        *("# h", "- item", "+ item", "1. item", "=== x", "> q", ":smile:", "`code", "\\", "a\\|b"),
    ],
)
def test_what_is_told_becomes_nothing_but_text_in_markdown(text: str) -> None:
    told = escaped(text)
    assert not re.search(r"@\w|#\d|://|(?i:www\.)|:smile:", told)
    bare = re.sub(r"\\[\\`*_{}\[\]|~#+.)=-]|<!-- -->|</?span>|&[a-z]+;|\d+\\[.)]", "", told)
    assert not re.search(r"[\\`*_\[\]|~<>]", bare)
    assert not re.match(r"(?:[-+=#>]|\d+[.)])(?:\s|$)", told)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def evil() -> Document:
    return Document(
        EVIL,
        (Note("!", "bad", EVIL, EVIL),),
        (
            Section(EVIL, (Prose(EVIL), Facts(((EVIL, EVIL),)), Excerpt(1, EVIL, 1, 2)), EVIL),
            Table(EVIL, (Column(EVIL), Column("x", "id")), ((EVIL, EVIL),), 3, EVIL),
            Bars(EVIL, "count", (EVIL,), ((EVIL, (1.0,)),)),
            Fold(EVIL, (Command(EVIL, EVIL),)),
        ),
        EVIL,
        foot=EVIL,
    )


def test_a_drawing_has_nothing_but_text_either(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vl_convert")
    tags = Tags()
    tags.feed(html(evil(), READING))
    assert "svg" in {name for name, _ in tags.seen}
    assert "path" in {name for name, _ in tags.seen}
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert "<svg" not in html(everything(), READING)


def test_what_is_told_becomes_nothing_but_text_in_html() -> None:
    tags = Tags()
    tags.feed(html(evil(), READING))
    names = {name for name, _ in tags.seen}
    assert not names & {"script", "img", "a", "iframe", "object", "form", "b"}
    assert not [attrs for _, attrs in tags.seen if any(key.startswith("on") for key in attrs)]
    assert "<script>alert(1)</script>" in "".join(tags.text)


def test_an_html_page_asks_for_nothing_and_can_be_read_by_ear() -> None:
    tags = Tags()
    tags.feed(html(everything(), READING))
    addresses = [
        value for _, attrs in tags.seen for key, value in attrs.items() if key in ("src", "href")
    ]
    assert addresses == []
    heads = [attrs for name, attrs in tags.seen if name == "th"]
    assert heads and all(attrs.get("scope") in ("col", "row") for attrs in heads)
    assert dict(tags.seen)["html"]["lang"] == "en"
    assert [name for name, _ in tags.seen].count("h1") == 1


def test_html_has_so_many_rows_and_counts_the_rest() -> None:
    text = html(everything(MOST_ROWS + 5), READING)
    assert text.count("<tr>") == MOST_ROWS + 1 + 1 + 2  # with two heads and two bars
    assert "12 left out" in text


@pytest.mark.parametrize("limit", [60_000, 20_000, 5_000, 2_000])
def test_markdown_is_never_longer_than_asked_and_counts_what_it_leaves_out(limit: int) -> None:
    text = markdown(everything(1_000), READING, limit)
    assert len(text) <= limit
    assert "Delete 3 copies" in text and "held back" in text
    found = re.search(r"([\d,]+) left out", text)
    rows = text.count(f"<code>{HEX}")
    assert found and rows + int(found[1].replace(",", "")) == 1_007


def test_a_day_is_told_as_the_law_means_it() -> None:
    midnight = datetime(2026, 11, 19, 18, 30, tzinfo=UTC)
    assert since(midnight, ZONE) == "2026-11-20" and through(midnight, ZONE) == "through 2026-11-19"
    later = midnight + timedelta(hours=1)
    assert since(later, ZONE) == "2026-11-20 01:00 IST"
    assert through(later, ZONE) == "until 2026-11-20 01:00 IST"


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on this machine")
@pytest.mark.parametrize("width", [390, 900, 1600])
def test_a_browser_without_scripts_shows_the_whole_page(width: int, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(html(everything(), READING))
    shot = tmp_path / "page.png"
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-javascript",
    )
    common = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path / 'profile'}"]
    size = f"--window-size={width},1400"
    subprocess.run(
        [*common, size, f"--screenshot={shot}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert shot.read_bytes().startswith(b"\x89PNG") and shot.stat().st_size > 20_000
    told = subprocess.run(
        [*common, size, "--dump-dom", page.as_uri()],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    assert "Delete 3 copies" in told and f"{HEX}02" in told


def long_list() -> Document:
    rows = tuple(
        (f"{HEX}{number:02x}", ("chat", "track")[number % 2], number) for number in range(30)
    )
    columns = (Column("recording", "id"), Column("type"), Column("copies", "count"))
    return Document("a list", (), (Table("", columns, rows, is_list=True),))


def test_the_rows_of_a_long_list_can_be_picked_by_their_few_values() -> None:
    page = html(long_list(), READING)
    (name,) = set(re.findall(r'name="(p[0-9a-f]{8}-1)"', page))
    assert page.count(f'<tr class="{name}-0">') == page.count(f'<tr class="{name}-1">') == 15
    assert f".{name}:has(#{name}-1:checked) tbody tr:not(.{name}-1)" in page
    assert "<script" not in page


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on this machine")
def test_picking_a_type_hides_the_other_rows_without_a_script(tmp_path: Path) -> None:
    page = html(long_list(), READING)
    name = re.findall(r'name="(p[0-9a-f]{8}-1)"', page)[0]
    picked = page.replace(f'id="{name}-1"', f'id="{name}-1" checked')
    assert picked != page
    heights = []
    for number, text in enumerate((page, picked)):
        path = tmp_path / f"{number}.html"
        # how high the table is, told in the title by a script of the test's own
        ask = "<script>document.title=document.querySelector('table').offsetHeight</script>"
        path.write_text(
            re.sub("<meta http-equiv[^>]*>", "", text).replace("</main>", f"</main>{ask}")
        )
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom")
        told = subprocess.run(
            [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
        heights.append(int(re.findall("<title>([0-9]+)</title>", told)[0]))
    assert heights[1] < 0.6 * heights[0]
