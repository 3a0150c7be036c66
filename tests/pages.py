"""One page of each thing that is told, made of values that do not change: what the goldens show."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta, timezone

import click

from retainer.cli import cli
from retainer.model.change import (
    Affected,
    Breach,
    Change,
    Clashing,
    Effect,
    HeldItems,
    Impact,
    LockedLonger,
    Month,
    Standing,
    Tested,
)
from retainer.model.diagnostic import Diagnostic, Span
from retainer.model.explanation import Considered, Explanation, Pair, Stage
from retainer.model.forecast import Coming, Dearer, Forecast, Lying, Once
from retainer.model.outcome import Census, Outcome, Resting, Summary, Trouble, Turn
from retainer.planfile import (
    Charts,
    ClashState,
    Group,
    Header,
    ItemState,
    LimitState,
    Line,
    Overview,
    SourceState,
    TargetState,
)
from retainer.views.census import census_page
from retainer.views.changes import changes_page
from retainer.views.explanation import explanation_page
from retainer.views.forecast import forecast_page
from retainer.views.impact import impact_page
from retainer.views.mistakes import mistakes_page
from retainer.views.outcomes import outcomes_page
from retainer.views.page import Document, Reading
from retainer.views.plan import plan_page
from retainer.views.run import run_page

NOW = datetime(2026, 11, 25, 22, 18, tzinfo=UTC)
READING = Reading(timezone(timedelta(hours=5, minutes=30), "IST"), NOW + timedelta(minutes=19))
DAY = timedelta(days=1)


def name(number: int) -> str:
    return f"6544d1e2f3a4b5c6d7e8f9{number:02x}"


def line(number: int, decision: str, store: str, **more: object) -> Line:
    fields: dict[str, object] = {
        "because": (),
        "rule": None,
        "rule_at": None,
        "type": "room-composite",
        "bytes": 1_000_000 * (number + 1),
        "until": None,
        "deadline": None,
        "delete_from": None,
        "leaves_at": None,
        "assumed": False,
        "last_copy": False,
        "source": None,
        "lock_until": None,
        "created": NOW - 60 * DAY,
        "also": None,
        "doubtful": False,
        "versions": None,
    }
    return Line(asset_id=name(number), store=store, decision=decision, **(fields | more))  # type: ignore[arg-type]


def group(key: tuple[str, ...], *lines: Line, count: int | None = None) -> Group:
    total = sum(each.bytes or 0 for each in lines)
    return Group(key, count or len(lines), total, count or len(lines), lines)


def plan() -> Document:
    midnight = NOW.replace(hour=0, minute=0)
    header = Header(
        digest="4087a02e1c2d3e4f" * 4,
        as_of="2026-11-25T22:18:00Z",
        created="2026-11-25T22:11:00Z",
        expires="2026-11-26T22:11:00Z",
        tool="0.1.0",
        duckdb="2.0.1",
        policy_digest="0" * 64,
        git_commit="9fd2c1a" + "0" * 33,
        git_dirty=False,
        scope=None,
        project="prod",
        items=[
            ItemState("calls", "rule", "policies/a.yaml:3", "Sales call records", "", "0", 9, 0),
            ItemState(
                "raw", "rule", "policies/a.yaml:9", "For arriving, not for keeping", "", "0", 9, 0
            ),
            ItemState(
                "DSR-17",
                "erasure",
                "policies/h.yaml:9",
                "Art. 17",
                "",
                "0",
                1,
                0,
                "2026-11-01T00:00:00Z",
            ),
            ItemState("LIT-9", "hold", "policies/h.yaml:2", "Acme v. Example", "", "0", 0, 0),
        ],
        sources=[
            SourceState("100ms", "assets", True, 90, 0, 0, 0, "one asset without a date"),
            SourceState("uploads", "store", True, 40, 10**9, 3, 5000),
            SourceState(
                "vault",
                "store",
                False,
                12,
                10**8,
                0,
                0,
                "the server did not answer",
                keeps_deleted="for 7 days (soft delete)",
            ),
        ],
        limits=[
            LimitState("count", "rule:raw", 501, 500, True, False, 499),
            LimitState("percent", "store:uploads", 24.6, 10, False, False),
            LimitState("bytes", "store:uploads", 3e9, 1e11, False, False),
        ],
        clashes=[ClashState("chat-ceiling", "calls", 4, False)],
        undeclared=[],
        targets=[
            TargetState("vault", None, 0, 0, "compliance", 0, 0, None, 3, "2033-11-30T00:00:00Z", 3)
        ],
        renamed=[],
        superseded=[],
        zones="2026.2",
        customer=None,
        uncovered=5,
        uncovered_bytes=10**6,
        incomplete=True,
        copies=26,
        copy_bytes=52 * 10**6,
        deletes=6,
        delete_bytes=27 * 10**6,
        last_copies=2,
        purges=2,
        locks=3,
        remembered="stores",
    )
    due = {"delete_from": midnight - 3 * DAY}
    view = Overview(
        deletes=(
            group(
                ("raw", "policies/a.yaml:9", "uploads", "false"),
                line(1, "delete", "uploads", **due),
                line(2, "delete", "uploads", **due, also="calls"),
                line(3, "delete", "uploads", **due, last_copy=True),
            ),
            group(
                ("DSR-17", "policies/h.yaml:9", "vault", "false"), line(4, "delete", "vault", **due)
            ),
            group(
                ("raw", "policies/a.yaml:9", "vault", "true"),
                line(12, "delete", "vault", **due, versions=3),
                line(13, "delete", "vault", **due, versions=1, last_copy=True),
            ),
        ),
        at_risk=(
            line(5, "copy", "vault", leaves_at=NOW + timedelta(hours=40)),
            line(6, "copy", "vault", leaves_at=NOW, created=None, assumed=True),
        ),
        at_risk_count=12,
        first_leaves_at=NOW + timedelta(hours=6),
        copies=(
            group(
                ("calls", "policies/a.yaml:3", "vault", "false"),
                line(5, "copy", "vault", source="hosted", deadline=NOW - timedelta(hours=8)),
                line(7, "copy", "vault", source="uploads"),
                count=24,
            ),
            group(
                ("calls", "policies/a.yaml:3", "cold", "true"),
                line(8, "copy", "cold", source="vault", doubtful=True),
            ),
        ),
        blocked=(
            group(("hold", "LIT-204"), line(9, "blocked", "uploads", rule="raw")),
            group(("hold, unsatisfied", ""), line(10, "blocked", "uploads", rule="raw")),
        ),
        locks=(
            group(
                ("calls", "policies/a.yaml:3", "vault"),
                line(14, "keep", "vault", lock_until=midnight + 2557 * DAY),
                line(15, "keep", "vault", lock_until=midnight + 2000 * DAY),
                count=3,
            ),
        ),
        archived=(),
        uncovered=(),
        out_of_scope=0,
        lapsing=(3, 10**7, NOW + 2 * DAY),
        others=(group(("lost", "vault", ""), line(11, "lost", "vault")),),
        totals=(("copy", 26, 52 * 10**6), ("delete", 6, 27 * 10**6), ("keep", 900, 10**12)),
        assets_deleted=6,
        assets_copied=13,
        charts=Charts(
            (("2026-12", 3, 10**9), ("2027-01", 9, 5 * 10**9)),
            ((0, 2, 1), (7, 4, 0), (14, 9, 3)),
            (("uploads", 40, 10**9, 9 * 10**6), ("vault", 12, 10**8, 0)),
        ),
    )
    return plan_page(header, view, READING, "ab" * 32, "tonight.plan")


def impact() -> Document:
    rows = (
        Affected(
            name(1),
            "chat",
            "vault",
            10**9,
            "keep",
            "delete",
            NOW + 7 * DAY,
            NOW - DAY,
            "chats",
            True,
        ),
        Affected(
            name(2),
            "chat",
            "vault",
            9 * 10**8,
            "keep",
            "delete",
            NOW + 9 * DAY,
            NOW - DAY,
            "chats",
            False,
        ),
    )
    old = Standing(
        3062,
        149 * 10**10,
        1454,
        772 * 10**9,
        12,
        1140,
        554 * 10**9,
        40,
        NOW + timedelta(hours=6),
        2,
        134_026,
    )
    new = Standing(
        6312,
        312 * 10**10,
        1442,
        766 * 10**9,
        2544,
        1087,
        528 * 10**9,
        40,
        NOW + timedelta(hours=6),
        2,
        134_026,
    )
    told = Impact(
        now=NOW,
        base="origin/main",
        base_commit="41ab77e",
        head="this change",
        head_commit="9fd2c1a",
        project="prod",
        facts_id="7c1e42d9",
        gathered=NOW - timedelta(minutes=7),
        incomplete=(),
        changes=(
            Change(
                "chats", "rule", "policies/a.yaml:6", "keep in vault", "1y", "6mo", "shorter", True
            ),
            Change(
                "sales", "rule", "policies/a.yaml:4", "keep in vault", "7y", "5y", "shorter", True
            ),
            Change("calls", "rule", "policies/a.yaml:2", "id", "call", "calls", "same", False),
        ),
        effects=(
            Effect("chats", "due now", 3250, 3250, 163 * 10**10, 2532, None, rows),
            Effect(
                "chats",
                "sooner",
                3149,
                3149,
                158 * 10**10,
                0,
                NOW.replace(hour=0, minute=0) + DAY,
                rows[:1],
            ),
            Effect("chats", "not copied", 12, 12, 572 * 10**7, 0, None, ()),
            Effect("sales", "shorter", 12_207, 12_207, 612 * 10**10, 0, NOW + 900 * DAY, ()),
            Effect("sales", "blocked", 6, 6, 591 * 10**7, 0, None, ()),
        ),
        assets=18_600,
        same=115_349,
        old=old,
        new=new,
        both_delete=3062,
        both_delete_bytes=149 * 10**10,
        both_copy=1442,
        both_copy_bytes=766 * 10**9,
        breaches=(
            Breach("count", "rule:chats", 856, 4106, 500, False),
            Breach("bytes", "store:vault", 0, 2.47e12, 1e11, True),
        ),
        clashes=(Clashing("chat-ceiling", "chats", 3, True),),
        holds=HeldItems(2, 0),
        freed=0,
        locks=(LockedLonger("vault", 40, 1200, 3, 1100, NOW + 2557 * DAY),),
        owners=("@acme/compliance", "@acme/privacy"),
        months=(Month("2026-12", 10**10, 4 * 10**10), Month("2027-01", 2 * 10**10, 10**9)),
        cliff=((0, 3, 1), (1, 0, 2), (14, 9, 0)),
        recoverable=(),
        tool="0.1.0",
        remembered="stores",
        lying_before=LYING,
        lying_after=(
            Lying("cold", "", "chat", (10**12, 10**12, 10**12, 10**12, 2 * 10**12), None),
            Lying(
                "vault",
                "GLACIER_IR",
                "chat",
                (57_900 * 10**9, 56_300 * 10**9, 55 * 10**12, 50 * 10**12, 41 * 10**12),
                (215.7, 209.7, 204.9, 186.3, 152.7),
            ),
        ),
        tests=Tested(14, ("a chat is kept a year (tests/sales.yaml:31)",)),
    )
    return impact_page(told, READING, 4)


LYING = (
    Lying("cold", "", "chat", (10**12, 10**12, 10**12, 10**12, 10**12), None),
    Lying(
        "vault",
        "GLACIER_IR",
        "chat",
        (57_900 * 10**9, 57_900 * 10**9, 58 * 10**12, 60 * 10**12, 66 * 10**12),
        (215.7, 215.7, 216.1, 223.5, 245.9),
    ),
)


def forecast() -> Document:
    def on(day: int, what: str, rule: str, store: str, copies: int, last: int = 0) -> Coming:
        when = (NOW + day * DAY).astimezone(READING.zone).date()
        return Coming(when, what, rule, store, copies, copies, copies * 10**9, last)  # type: ignore[arg-type]

    told = Forecast(
        now=NOW,
        days=90,
        project="prod",
        timezone="Asia/Kolkata",
        facts_id="7c1e42d9",
        gathered=NOW - timedelta(minutes=7),
        incomplete=("cold",),
        coming=(
            on(0, "copy", "calls", "vault", 26),
            on(0, "delete", "chats", "vault", 32, 16),
            on(3, "leaves", "", "hosted", 5),
            on(9, "delete", "chats", "vault", 7, 7),
            on(60, "copy", "calls", "cold", 4),
        ),
        lying=LYING,
        once=(Once("vault", 12.5, 0.0, 91.2, 0.004), Once("uploads", 0.0, 3.0, 0.0, 0.0)),
        dearer=(
            Dearer("vault", "GLACIER_IR", 7, 26, 1.25, 61),
            Dearer("x", "ARCHIVE", 1, 1, 2, -1),
        ),
        unpriced=("cold",),
        unforeseen=3,
        prices_of="2026-11",
        tool="0.1.0",
    )
    return forecast_page(told, READING)


def run() -> Document:
    done = Summary(
        copied=25, copied_bytes=5 * 10**8, deleted=3, deleted_bytes=10**8, left_deletes=1
    )
    done.failed = [
        Trouble(
            *("copy", name(n), "cold", f"{name(n)}: 404", "ask 100ms", "s3://hms-eu"),
            NOW + n * DAY if n < 3 else None,
        )
        for n in range(7)
    ]
    done.skipped = [Trouble("delete", name(9), "vault", "its object has changed since the plan")]
    done.resting = {
        "hosted": Resting(
            "100ms answered 503 eight times", "see their status page", False, 4, 1, NOW + DAY
        )
    }
    return run_page(done, "tonight.plan", 4, READING)


def held_run() -> Document:
    done = Summary(copied=25, copied_bytes=5 * 10**8, left_deletes=4)
    held = ["limit count of rule:raw"]
    return run_page(done, "tonight.plan", 4, READING, held, "a person lifts it, or it stays so")


def explanation() -> Document:
    ends = datetime(2028, 11, 16, tzinfo=UTC)
    told = Explanation(
        asset_id=name(1),
        now=NOW,
        facts=(("type", "chat"), ("created", "2026-11-15T18:10:59Z"), ("size", "700024")),
        considered=(
            Considered("chats", "rule", "policies/a.yaml:6", "yes"),
            Considered("sales", "rule", "policies/a.yaml:4", "not certain"),
            Considered("LIT-1", "hold", "policies/h.yaml:2", "no"),
        ),
        stages=(
            Stage("chats", "keep", "vault", None, ends, True),
            Stage("chats", "delete", "vault", None, NOW - DAY, False),
        ),
        pairs=(
            Pair("hosted", "lapses", (), None, NOW + DAY, None, None, None, True, True),
            Pair(
                "vault",
                "delete",
                (),
                "chats",
                None,
                None,
                ends,
                NOW - DAY,
                True,
                True,
                also="classes",
            ),
            Pair(
                "cold",
                "blocked",
                ("hold",),
                "chats",
                None,
                None,
                None,
                NOW,
                True,
                True,
                also="LIT-1",
            ),
        ),
        next_at=ends,
        next_pairs=(Pair("vault", "delete", (), "chats", None, None, ends, ends, True, True),),
        gathered=NOW - 2 * DAY,
    )
    return explanation_page(told, READING)


def census() -> Document:
    found = Census(looked=40, recorded=38, bytes=10**9, unknown=2, broken=["chat/2026/x.csv"])
    found.missing = ["track/2026/y.mp4"]
    return census_page(found, "verified", "vault")


def mistakes() -> Document:
    text = "    filter: { type: caht }"
    return mistakes_page(
        [
            Diagnostic(
                "P101",
                "policies/a.yaml",
                Span(4, 5, 4, 11),
                "unknown key `filter`",
                "did you mean `match`?",
                text,
            ),
            Diagnostic(
                "L510",
                "policies/a.yaml",
                Span(2, 1, 2, 1),
                "kept for ever, and nobody's",
                None,
                "",
                True,
            ),
        ]
    )


def outcomes() -> Document:
    turn = Turn(NOW, "chats", "a", "vault", "keep", "delete")
    return outcomes_page(
        [
            Outcome(
                "a chat is kept a year",
                "tests/a.yaml:31",
                ("a in vault: is is delete, expected keep",),
            ),
            Outcome("a call is copied", "tests/a.yaml:9", (), turns=(turn,)),
        ],
        with_passed=True,
        untested=["store cold"],
    )


def changes() -> Document:
    return changes_page(
        [
            Change(
                "chats", "rule", "policies/a.yaml:6", "keep in vault", "1y", "6mo", "shorter", True
            ),
            Change(
                "retainer.yaml",
                "settings",
                "retainer.yaml",
                "timezone",
                "UTC",
                "Europe/Berlin",
                "others",
            ),
        ],
        "v1",
        "v2",
    )


PAGES = {
    "forecast": forecast,
    "plan": plan,
    "impact": impact,
    "run": run,
    "held-run": held_run,
    "explanation": explanation,
    "census": census,
    "mistakes": mistakes,
    "outcomes": outcomes,
    "changes": changes,
}


def only_commands(text: str) -> int:
    """Every command of a page of docs is one that there is, with options that it has; how many
    there are."""
    code = re.findall(r"(?ms)^```\w*\n(.*?)^```$", text)
    code += re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```\w*\n.*?^```$", "", text))
    typed = [
        line
        for each in code
        for line in re.findall(r"(?m)(?:^|&& |\$ )(retainer [^\n&|#>]+)", each)
    ]
    for line in typed:
        arguments = shlex.split(line.split("   ")[0])[1:]
        with cli.make_context("retainer", arguments, resilient_parsing=True) as context:
            inner, left = context, [*getattr(context, "_protected_args", ()), *context.args]
            while isinstance(inner.command, click.Group) and left:
                _, command, left = inner.command.resolve_command(inner, left)
                assert command is not None, line
                options = {name for each in command.params for name in each.opts} | {"--help"}
                told = {word.partition("=")[0] for word in left if word.startswith("--")}
                assert isinstance(command, click.Group) or told <= options, line
                inner = command.make_context(
                    command.name, left, parent=inner, resilient_parsing=True
                )
                left = [*getattr(inner, "_protected_args", ()), *inner.args]
    return len(typed)
