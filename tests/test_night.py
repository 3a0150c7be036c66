"""What an operator sees at night: each cause once, what a run is about to do, and who is told."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import promql_parser
import pytest
import yaml
from pages import only_commands
from project import POLICY, Project, video
from prometheus_client.parser import text_string_to_metric_families

from retainer.views.metrics import OF_A_PLAN, OF_A_RUN

A, B, C = "a" * 24, "b" * 24, "c" * 24


class Chat:
    """A webhook that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.answer = 200
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                chat.told.append(json.loads(body))
                self.send_response(chat.answer)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/T0/secret-token"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def chat() -> Iterator[Chat]:
    chat = Chat()
    yield chat
    chat.close()


@pytest.fixture
def due(local: Project) -> Project:
    return local.copied_and_due(A, B)


def words(text: str) -> str:
    return " ".join(text.split())


# ── each cause once ───────────────────────────────────────────────────────────────────────────────


def test_a_cause_is_told_once_with_how_many_leave_100ms_and_when(local: Project) -> None:
    for number in range(4):
        local.hosted(f"{number}" * 24, video(number), age=timedelta(days=10 + number))
    local.plan("p.plan")
    local.api.faults.fail_first = {"presigned-url": [404] * 1000}
    done = local.run("apply", "p.plan", expect=7)
    text = words(done.stdout)
    assert text.count("404, it is not there") == 1
    assert "! 4 copies from s3://hms-prod" in text
    assert "4 of them leave 100ms, the first on" in text
    assert done.stderr.count("failed: copy") == 1  # the rest of that cause is in the summary
    loud = local.run("-v", "apply", "p.plan", expect=7)
    assert loud.stderr.count("failed: copy") == 4


def test_an_apply_begins_by_saying_what_it_will_do(due: Project) -> None:
    plan = due.plan("p.plan")
    done = due.run("apply", "p.plan", "--approve-deletes", str(plan["header"]["deletes"]))
    first = words(done.stderr)
    assert first.startswith(
        f"Plan with fingerprint {plan['fingerprint'][:12]} (policies; facts of "
    )
    assert ": 1 delete in uploads (3.02 kB; for ever in uploads)." in first
    assert "Plan " not in due.run("-q", "apply", "p.plan", expect=5).stderr


def test_where_copies_alone_were_asked_for_deletes_that_wait_are_nothing_left_undone(
    due: Project,
) -> None:
    due.plan("p.plan")
    due.run("apply", "p.plan", expect=7)
    due.run("apply", "p.plan", "--approve-deletes", "0")
    due.hosted(C, video(3))
    due.plan("q.plan")
    due.api.faults.fail_first = {"presigned-url": [404] * 1000}
    due.run("apply", "q.plan", "--approve-deletes", "0", expect=7)


def test_it_is_said_which_rule_has_changed_since_the_plan(due: Project) -> None:
    due.plan("p.plan")
    rules = [POLICY["rules"][0] | {"keep": [{"in": "vault", "for": "3y"}]}, POLICY["rules"][1]]
    due.write(POLICY | {"rules": [*rules, {"id": "new", "match": "all", "at_most": "9y"}]})
    told = due.run("apply", "p.plan", expect=5).stderr
    assert "calls has changed, new is new since the plan was made" in words(told)
    due.write(POLICY | {"rules": [POLICY["rules"][1]]})
    assert "calls is gone since the plan was made" in due.run("apply", "p.plan", expect=5).stderr


def test_the_totals_of_a_part_are_those_of_what_it_does(due: Project) -> None:
    due.hosted(C, b"SenderName\n", kind="chat", age=timedelta(days=1))
    whole = words(due.run("plan").stdout)
    part = words(due.run("plan", "--only", "{type: chat}").stdout)
    assert "- delete 1" in whole and "+ copy 1" in whole
    assert "- delete" not in part.split("Totals", 1)[1] and "+ copy 1" in part
    assert "besides, 1 action lies outside --only, and not in the plan" in part


# ── the last whole snapshot ───────────────────────────────────────────────────────────────────────


def test_a_listing_that_failed_never_replaces_the_last_whole_snapshot(local: Project) -> None:
    local.hosted(A, video(1))
    local.run("facts", "--out", "f.duckdb")
    whole = (local.root / "f.duckdb").read_bytes()
    local.api.faults.fail_first = {"/recording-assets": [500] * 10_000}
    local.impatient = True
    told = local.run("facts", "--out", "f.duckdb", expect=8)
    assert "f.duckdb stays as it was" in told.stderr
    assert (local.root / "f.duckdb").read_bytes() == whole
    local.run("plan", expect=8)
    with duckdb.connect(str(local.root / ".retainer" / "facts.duckdb"), read_only=True) as facts:
        assert facts.execute("SELECT bool_and(complete) FROM listings").fetchone() == (True,)
    assert "6544" not in told.stdout
    (local.root / "f.duckdb").unlink()
    local.run("facts", "--out", "f.duckdb", expect=8)  # better than nothing, and it says so
    assert (local.root / "f.duckdb").exists()


# ── who is told ───────────────────────────────────────────────────────────────────────────────────


def test_a_webhook_is_told_how_a_run_ended(due: Project, chat: Chat) -> None:
    due.environment["RETAINER_WEBHOOK"] = chat.url
    due.plan("p.plan")
    assert chat.told == []  # a plan that is well troubles nobody
    done = due.run("apply", "p.plan", "--approve-deletes", "1")
    (told,) = chat.told
    assert (told["event"], told["exit_code"], told["deleted"]) == ("run", 0, 1)
    assert told["text"].splitlines()[0] == "Run of p.plan" and "deleted 1 copy" in told["text"]
    assert "secret-token" not in done.stdout + done.stderr


def test_a_webhook_is_told_of_a_plan_that_is_held_back_and_of_errors(
    due: Project, chat: Chat
) -> None:
    due.limits = {"count": 0, "percent": 100, "bytes": "1TB"}
    due.write()
    due.run("plan", "--webhook", chat.url, expect=4)
    assert (chat.told[0]["event"], chat.told[0]["exit_code"]) == ("plan", 4)
    due.run("apply", "nothing.plan", "--webhook", chat.url, expect=5)
    assert chat.told[1]["event"] == "error" and "no plan at nothing.plan" in chat.told[1]["text"]


def test_slack_is_told_text_alone_that_calls_nobody(due: Project, chat: Chat) -> None:
    due.run("apply", "<!channel>", "--webhook", f"slack+{chat.url}", expect=5)
    assert chat.told[0].keys() == {"text"}
    assert "&lt;!channel&gt;" in chat.told[0]["text"]


def test_a_webhook_that_fails_changes_nothing_and_is_said(due: Project, chat: Chat) -> None:
    due.plan("p.plan")
    chat.answer = 500
    done = due.run("apply", "p.plan", "--approve-deletes", "1", "--webhook", chat.url)
    assert "the webhook was told, and answered 500" in done.stderr
    assert "secret-token" not in done.stderr
    due.plan("q.plan")
    done = due.run("apply", "q.plan", "--webhook", "http://127.0.0.1:9/x")
    assert "the webhook could not be told: ConnectError" in done.stderr
    due.run("plan", "--out", "r.plan")
    done = due.run("apply", "r.plan", "--webhook", "https://a..b/secret-token")
    assert "the webhook could not be told" in done.stderr and "secret-token" not in done.stderr


@pytest.mark.parametrize("end", ["\n", " "])
def test_a_secret_that_ends_with_its_line_is_that_address(
    due: Project, chat: Chat, end: str
) -> None:
    due.run("apply", "nothing.plan", "--webhook", chat.url + end, expect=5)
    assert len(chat.told) == 1


def test_wrong_policies_are_told_too(due: Project, chat: Chat) -> None:
    (due.root / "policies" / "rules.yaml").write_text("version: 1\nrules: []\nrulez: []\n")
    due.run("plan", "--webhook", chat.url, expect=10)
    assert (chat.told[0]["event"], chat.told[0]["exit_code"]) == ("error", 10)


def test_metrics_that_cannot_be_written_change_nothing_of_how_a_run_ends(
    due: Project, chat: Chat
) -> None:
    due.plan("p.plan")
    words_of = ("--approve-deletes", "1", "--metrics", "nowhere/r.prom", "--webhook", chat.url)
    done = due.run("apply", "p.plan", *words_of)
    assert "the metrics: there is no folder nowhere" in done.stderr
    assert chat.told[0]["deleted"] == 1


@pytest.mark.parametrize("url", ["http://example.com/x", "ftp://x", "https://", "http://[::1"])
def test_no_message_goes_anywhere_but_over_https_or_to_this_machine(due: Project, url: str) -> None:
    assert "webhook" in due.run("plan", "--webhook", url, expect=64).stderr


# ── metrics ───────────────────────────────────────────────────────────────────────────────────────


def metrics(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_of_a_plan_and_of_a_run_are_read_by_prometheus(due: Project) -> None:
    due.hosted(C, video(3), age=timedelta(days=14))
    due.run("plan", "--out", "p.plan", "--metrics", "plan.prom")
    found = metrics((due.root / "plan.prom").read_text())
    assert found["retainer_plan_actions", "what=copy"] == 1
    assert found["retainer_plan_actions", "what=delete"] == 1
    assert found[("retainer_at_risk_recordings",)] == 1
    assert found["retainer_listing_complete", "source=vault"] == 1
    assert found[("retainer_plan_held_back",)] == 0
    assert ("retainer_limit_used_ratio", "limit=count", "scope=rule:raw") in found
    due.run("apply", "p.plan", "--approve-deletes", "1", "--metrics", "run.prom")
    found = metrics((due.root / "run.prom").read_text())
    assert found["retainer_run_actions", "outcome=copied"] == 1
    assert found["retainer_run_actions", "outcome=deleted"] == 1
    assert (found[("retainer_run_success",)], found[("retainer_run_exit_code",)]) == (1, 0)


def test_a_run_that_is_refused_is_measured_too(due: Project) -> None:
    due.run("apply", "nothing.plan", "--metrics", "run.prom", expect=5)
    found = metrics((due.root / "run.prom").read_text())
    assert (found[("retainer_run_success",)], found[("retainer_run_exit_code",)]) == (0, 5)
    assert not any(name == "retainer_run_actions" for name, *_ in found)


# ── in other forms ────────────────────────────────────────────────────────────────────────────────


def test_what_goes_on_can_be_json_lines(due: Project) -> None:
    due.plan("p.plan")
    done = due.run("--log-format", "json", "apply", "p.plan", "--approve-deletes", "1")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines and all({"at", "event", "level"} <= line.keys() for line in lines)
    wrong = due.run("--log-format", "json", "apply", "p.plan", expect=5)
    (error,) = [json.loads(line) for line in wrong.stderr.splitlines() if '"error"' in line]
    assert error["exit_code"] == 5 and error["hint"].startswith("make a new plan")


def test_a_folder_and_options_can_be_given_otherwise(due: Project) -> None:
    other = due.root.parent / "elsewhere"
    other.mkdir()
    due.environment["RETAINER_PLAN_OUT"] = "named.plan"
    root, due.root = due.root, other
    due.run("-C", str(root), "plan")
    assert (root / "named.plan").exists()
    due.root = root
    due.environment |= dict.fromkeys(
        ("RETAINER_APPLY_APPROVE_DELETES", "RETAINER_VERSION", "RETAINER_HELP"), "1"
    ) | {"RETAINER_DIRECTORY": str(other), "RETAINER_APPLY_HELP": "1"}
    done = due.run("apply", "named.plan", "--format", "json", expect=7)
    assert json.loads(done.stdout)["deleted"] == 0  # what approves is never taken from there


MONITORING = Path(__file__).parents[1] / "examples" / "prometheus"


def asked(expression: str) -> set[str]:
    return set(re.findall(r"\bretainer_[a-z_0-9]+", expression))


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    known = OF_A_PLAN.keys() | OF_A_RUN.keys()
    (group,) = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    pages = (Path(__file__).parents[1] / "docs" / "runbooks.md").read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^## (.+)$", pages, re.MULTILINE)
    }
    for alert in group["rules"]:
        promql_parser.parse(alert["expr"])
        assert {"alert", "expr", "labels", "annotations"} <= alert.keys()
        assert asked(alert["expr"]) and asked(alert["expr"]) <= known
        assert asked(alert["annotations"]["summary"]) <= known
        page, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert page == "docs/runbooks.md" and anchor in headings
    board = json.loads((MONITORING / "dashboard.json").read_text())
    for each in board["panels"]:
        promql_parser.parse(each["targets"][0]["expr"])
    shown = {name for each in board["panels"] for name in asked(each["targets"][0]["expr"])}
    assert shown <= known and len({each["id"] for each in board["panels"]}) == len(board["panels"])


# ── completion ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("retainer verify va", "vault"),
        ("retainer help P20", "P208"),
        ("retainer plan --lift count:rule:c", "count:rule:calls"),
        ("retainer fore", "forecast"),
        ("retainer apply --fing", "--fingerprint"),
    ],
)
def test_a_shell_completes_what_the_project_declares(
    due: Project, typed: str, offered: str
) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "retainer"],
        cwd=due.root,
        env=due.env()
        | {
            "_RETAINER_COMPLETE": "bash_complete",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(typed.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert offered in [line.partition(",")[2] for line in told.stdout.splitlines()], told


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(local: Project, shell: str) -> None:
    told = local.run("completion", shell).stdout
    assert "_RETAINER_COMPLETE" in told
    if found := shutil.which(shell):
        subprocess.run([found, "-n"], input=told, text=True, check=True)


# ── nights that are played, and their runbooks ────────────────────────────────────────────────────

RUNBOOKS = (Path(__file__).parents[1] / "docs" / "runbooks.md").read_text()


def in_the_runbook(heading: str, *sentences: str) -> None:
    """The runbook of a night names the words that were read."""
    section = words(RUNBOOKS.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0])
    for sentence in sentences:
        assert sentence in section, (heading, sentence)


@pytest.fixture
def tonight(local: Project) -> Project:
    """Two recordings at 100ms, of which one leaves tomorrow, and a plan to copy them."""
    local.hosted(A, video(1), age=timedelta(days=14, minutes=20))
    local.hosted(B, video(2), age=timedelta(days=3))
    local.plan("p.plan")
    return local


def test_a_night_on_which_a_store_is_down(tonight: Project) -> None:
    folder = Path(tonight.stores["vault"].url.removeprefix("file://"))
    folder.rename(folder.with_suffix(".gone"))
    plan = words(tonight.run("plan", expect=8).stdout)
    assert "vault did not finish after 0" in plan and plan.count("is not there") == 1
    run = words(tonight.run("apply", "p.plan", expect=7).stdout)
    assert re.search(r"! 2 copies from \S+ in vault failed: probe vault: .* is not there", run)
    assert "2 of them leave 100ms, the first on" in run and "hint: create it" in run
    in_the_runbook("A store is down", "`did not finish`", "failed: probe vault: … is not there`")
    folder.with_suffix(".gone").rename(folder)
    assert tonight.apply("p.plan")["copied"] == 2  # the same plan goes on


@pytest.mark.slow
def test_a_night_on_which_100ms_is_down(tonight: Project) -> None:
    tonight.impatient = True
    tonight.api.faults.fail_first = {"/recording-assets": [503] * 10_000}
    plan = words(tonight.run("plan", expect=8).stdout)
    assert plan.count("it answered 503") == 1, "every list of 100ms for one cause"
    said = "The facts are incomplete: no delete that could be concerned is in this plan."
    assert said in plan
    run = tonight.run("apply", "p.plan", expect=7)
    assert words(run.stdout).count("it answered 503") == 1
    in_the_runbook("100ms is down", "`it answered 503`", f"`{said}` Exit 8")
    tonight.api.faults.fail_first = {}
    assert tonight.apply("p.plan")["copied"] == 2


def test_a_night_on_which_the_credentials_have_expired(tonight: Project) -> None:
    tonight.environment["HMS_SECRET"] = "another"
    for command in (("plan",), ("apply", "p.plan")):
        told = tonight.run(*command, expect=11)
        text = words(told.stdout + told.stderr)
        assert text.count("100ms refused the credentials") == 1
        assert "check HMS_ACCESS_KEY and HMS_SECRET" in text
    in_the_runbook("Credentials expired", "`100ms refused the credentials` (exit 11)")
    tonight.environment.clear()
    assert tonight.apply("p.plan")["copied"] == 2


@pytest.mark.slow
def test_a_night_after_a_policy_was_merged_by_mistake(due: Project) -> None:
    due.run("plan", expect=None)
    rules = [
        POLICY["rules"][0],
        POLICY["rules"][1] | {"delete": [{"in": "uploads", "after": "1d"}]},
    ]
    due.limits = {"count": 1, "percent": 100, "bytes": "1TB"}
    due.write(POLICY | {"rules": rules})
    plan = words(due.run("plan", "--out", "q.plan", expect=4).stdout)
    said = "Limits are breached: the deletes of this plan are held back, its copies can run."
    assert said in plan and "`--lift count:rule:raw` lifts it" in plan
    done = due.run("apply", "q.plan", "--format", "json", expect=4)
    assert json.loads(done.stdout)["deleted"] == 0
    in_the_runbook("A wrong policy was merged", f"`{said}` Exit 4")
    due.write()
    assert due.plan("r.plan")["header"]["deletes"] == 1  # as it was


def test_a_night_with_recordings_at_risk(tonight: Project) -> None:
    plan = words(tonight.run("plan", "--fail-if-at-risk", "72h", expect=12).stdout)
    assert "At risk: 2 recordings" in plan
    assert "exist only at 100ms, and will be gone, the first in 23 hours" in plan
    in_the_runbook(
        "Recordings at risk", "`At risk: … exist only at 100ms, and will be gone, the first in …`"
    )
    assert tonight.apply("p.plan")["copied"] == 2
    tonight.run("plan", "--fail-if-at-risk", "72h")


def test_every_command_of_a_runbook_is_one_that_there_is() -> None:
    assert only_commands(RUNBOOKS) > 12
