"""The project that a command works on: its settings, policies and facts."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retainer.cli.printing import fail_on
from retainer.cli.process import now, stop
from retainer.errors import CredentialsRefused, PoliciesWrong, StoreFailed, WrongUsage
from retainer.private import keep_private_in
from retainer.tracing import listed
from retainer.voice import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from datetime import timedelta

    from retainer.journal.backend import Backend, Reading
    from retainer.journal.ledger import Ledger
    from retainer.model.rule import Policies
    from retainer.model.setting import Settings, Store
    from retainer.patience import Patience
    from retainer.ports import Engine, StoreReader
    from retainer.weighing import Cooling, Making


def project_root() -> Path:
    from retainer.settings import find_root

    root = find_root(Path.cwd())
    if root is None:
        raise PoliciesWrong(
            "there is no retainer.yaml here or in any folder above",
            hint="`retainer init` writes one",
        )
    return root


def the_project() -> tuple[Path, Settings, Policies]:
    """The project's settings and policies; mistakes are shown, all of them, and end the command."""
    from retainer.settings import load_project

    root = project_root()
    settings, policies, mistakes = load_project(root)
    fail_on(mistakes)
    keep_private_in(state_of(root, settings))
    return root, settings, policies


def state_of(root: Path, settings: Settings) -> Path:
    """What this machine keeps for itself: facts, caches; and the record, unless a store has it."""
    return root / settings.state


def record_in(root: Path, settings: Settings, patience: timedelta | None = None) -> Reading:
    """What was done, to be read."""
    from retainer import wiring

    return wiring.open_record(
        settings, state_of(root, settings), stop(), wiring.patience_of(patience, stop())
    )


def record_for(root: Path, settings: Settings, patience: timedelta | None = None) -> Backend:
    """The same for a run, which writes down what it does."""
    from retainer import wiring

    return wiring.open_backend(
        settings, state_of(root, settings), stop(), wiring.patience_of(patience, stop())
    )


def gathered(
    root: Path,
    settings: Settings,
    policies: Policies,
    out: Path,
    *,
    for_any_policies: bool = False,
    before: Sequence[Path] = (),
    patience: timedelta | None = None,
    lifts: Collection[str] = (),
) -> None:
    """Ask 100ms and every store, and leave a snapshot of the facts at `out`. `before`: older ones,
    besides the last, whose names of rooms are kept; `lifts`: what a person said may be so."""
    from retainer import wiring
    from retainer.journal.anchors import judge_of
    from retainer.journal.journal import read_ledger
    from retainer.journal.stores import known_stores, remember_stores
    from retainer.planning import gather
    from retainer.progress import Gathering

    state = state_of(root, settings)
    record = record_in(root, settings, patience)
    ledger = read_ledger(record)
    judge, known = judge_of(record, ledger), known_stores(state)
    lists = dict.fromkeys(ledger.seen, "100ms") | {each: each for each in settings.places}
    with Gathering() as shown:
        patient = wiring.patience_of(patience, stop(), shown.waiting)
        api = wiring.open_api(settings, stop(), patient)
        readers = [wiring.open_reader(store, stop(), patient) for store in settings.stores]
        reports = {
            store.name: opened
            for store in settings.stores
            if (opened := wiring.open_reports(store, stop(), patient))
        }
        listings = gather(
            settings,
            policies,
            api,
            readers,
            reports=reports,
            lists=state / "lists",
            record=ledger.head,
            out=out,
            cache=state / "catalog",
            clock=now,
            known=settings.identities(known),
            judge=judge,
            before=sorted({state / "facts.duckdb", out, *before}),
            seen=ledger.seen,
            meant={name for name in ledger.seen if f"disappeared:{lists[name]}" in lifts},
            progress=shown.rows,
            for_any_policies=for_any_policies,
        )
    listed(listings)
    places = settings.places
    seen = {
        places[each.name]: each.identity
        for each in listings
        if each.kind == "store" and each.identity and each.complete
    }
    remember_stores(state, known, seen)


def last_facts(root: Path, settings: Settings, policies: Policies) -> Path:
    """The facts of the last plan; they are gathered where there are none."""
    snapshot = state_of(root, settings) / "facts.duckdb"
    if not snapshot.is_file():
        gathered(root, settings, policies, snapshot, for_any_policies=True)
    return snapshot


def ledger_in(record: Reading, *, offline: bool = False) -> Ledger | None:
    """What the record comes to. `offline`: None where it cannot be reached, which is said."""
    from retainer.journal.journal import read_ledger

    try:
        return read_ledger(record)
    except (StoreFailed, CredentialsRefused) as error:
        if not offline:
            raise
        tell(
            f"the state in {record.where} cannot be read ({error.message}): this is without what "
            "was deleted in the last 24 hours, and without a freeze"
        )
        return None


def making_at(
    record: Reading,
    moment: datetime,
    *,
    cooling: tuple[Path, Settings, Policies] | None = None,
    offline: bool = False,
    **more: Any,
) -> Making:
    """What a decision is made with: its moment, and what the record says. `cooling`: the project
    whose earlier policies may count; `offline`: do without a record that cannot be reached, and say
    so."""
    from retainer.journal.freeze import freeze_in
    from retainer.plan.limits import Deletes
    from retainer.weighing import Making

    ledger = ledger_in(record, offline=offline)
    if ledger is None:
        return Making(moment, **more)
    if cooling is not None:
        more["cooling"] = cooling_at(*cooling, ledger, moment)
    own, frozen = record.identity(), freeze_in(record, moment)
    return Making(
        moment,
        frozen=frozen.words if frozen else "",
        recent=tuple(
            Deletes(store, rule, count, size)
            for (store, rule), (count, size) in ledger.recent_deletes(moment).items()
        ),
        has_journal=not ledger.is_empty,
        weak=tuple(ledger.weak_stores().items()),
        state=own,
        gone=tuple(ledger.gone_sources().items()),
        **more,
    )


def cooling_at(
    root: Path, settings: Settings, policies: Policies, ledger: Ledger | None, moment: datetime
) -> Cooling:
    """What the policies of earlier applies promised, where that still counts."""
    from retainer.cooling import cooling
    from retainer.weighing import Cooling

    if ledger is None or settings.cooling is None:
        return Cooling()
    reigns = ledger.applied_within(settings.cooling, moment)
    return cooling(root, settings, policies, reigns, settings.cooling)


@contextmanager
def engine_at(address: str) -> Iterator[Engine]:
    """The machines behind a scheduler. Raises WrongUsage where everybody could tell them what to
    do."""
    from retainer.settings import is_loopback

    scheme, _, place = address.partition("://")
    name, _, port = place.rpartition(":")
    host = name.strip("[]")
    if not (scheme in ("tls", "tcp") and host and port.isdecimal()):
        raise WrongUsage(
            f"--on {address}: this is no address of a scheduler",
            hint="such as tls://scheduler.internal:8786, or tcp://127.0.0.1:8786",
        )
    if scheme != "tls" and not (scheme == "tcp" and is_loopback(host)):
        raise WrongUsage(
            f"--on {address}: whoever reaches an open scheduler runs programs on its workers",
            hint="use tls://HOST:PORT; tcp:// is for a scheduler on this machine alone",
        )
    from retainer.cluster import Cluster

    engine = Cluster(address)
    try:
        yield engine
    finally:
        engine.close()


def readers_of(settings: Settings, patience: Patience) -> Callable[[str], StoreReader | None]:
    """What opens a store by its name; it gives None where none of that name is declared."""
    from retainer import wiring

    def opened(name: str) -> StoreReader | None:
        store = settings.store(name)
        return wiring.open_reader(store, stop(), patience) if store else None

    return opened


def declared_store(settings: Settings, store: str) -> Store:
    from retainer.policy.diagnostics import nearest

    declared = settings.store(store)
    if declared is None:
        close = nearest(store, [each.name for each in settings.stores])
        raise WrongUsage(
            f"there is no store `{store}`",
            hint=f"did you mean `{close}`?"
            if close
            else "retainer.yaml declares them under `stores:`",
        )
    return declared


def not_in_the_way(out: Path, root: Path, settings: Settings, end: str) -> None:
    """Raises WrongUsage for a place where policies, or retainer's own record, are looked for."""
    from retainer.policy.files import POLICY_FOLDER

    place = Path(os.path.realpath(out))
    if place.is_relative_to(os.path.realpath(root / POLICY_FOLDER)):
        raise WrongUsage(
            f"{out} lies under policies/, where everything is read as a policy",
            hint="name another folder",
        )
    if place.is_relative_to(os.path.realpath(state_of(root, settings))) and not place.name.endswith(
        end
    ):
        raise WrongUsage(
            f"{out} lies in the state folder, where retainer keeps its record",
            hint=f"name it so that it ends in {end}",
        )


def keep_facts(made: Path, place: Path) -> bool:
    """Let a new snapshot take the place of the last one, unless a listing of it did not finish and
    the last one is whole. Says whether it did."""
    from retainer.inventory.facts import is_complete
    from retainer.planfile import put_in_place

    if not is_complete(made) and is_complete(place):
        return False
    put_in_place(made, place)
    return True
