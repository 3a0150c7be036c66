"""Declarative retention for 100ms recordings: one arrow from policies and facts to a plan, and on.

    policies/*.yaml ── policy ──▶ rules ──┐
                                          ├─ plan ──▶ plan file ──▶ a person, a pull request
    100ms API, buckets ─ inventory ▶ facts┘               │
                                                          ▼
                  journal ◀── every intention and outcome ── apply ──▶ stores

Stages share nouns and never import each other; `cli` strings them together (import-linter holds
it, see pyproject.toml).

    cli/            each command, in a few lines; only here is anything printed, only here are
                    errors caught (process): start, check, plans, ahead, applies, copies,
                    records; what they share: project, options, printing
    voice.py        what goes on, on stderr: sentences, or JSON lines
    progress.py     how long work goes on, on stderr
    tracing.py      what went on, as OpenTelemetry spans
    webhook.py      a message to a chat, or to another program
    cluster.py      the machines behind a scheduler of Dask   ◀ another engine: one such file
    working.py      a share of a plan, made by one of them
    ranging.py      a range of the recordings of a plan, decided by one of them
    workplace.py    where they work: version, project, and what goes wrong there
    wiring.py       the only place that names a concrete store or source
                                                        ◀ a new kind of store: one line here
    planning.py     facts and policies -> a plan file
    weighing.py     what is decided, range by range of recordings, and what it adds up to
    drafting.py     a plan's rows on their way to its file
    binding.py      Parquet files -> one, row group by row group
    applying.py     a plan file and today -> a run
    spreading.py    a run that other machines make, share by share
    cooling.py      what earlier policies had promised, from their commits
    approving.py    what a second person says to a plan
    doctoring.py    settings and policies beside what is really there
    history.py      the record -> what it says of a recording, a run, a span of time
    applied.py      the plans that were applied, read again
    reporting.py    the record and applied plans -> a span of time, for an audit
    certifying.py   the record and applied plans -> what is gone, and what is left
    explaining.py   why one asset is treated as it is
    standing.py     what each hold and erasure comes to
    forecasting.py  what daily plans will do, what lies where, and about what it costs
    impact.py       two policies and one snapshot -> what the second treats otherwise
    revision.py     settings and policies as they were in a commit
    rights.py       the least rights that a plan, or an apply, needs
    cases.py        policy tests -> what came out otherwise
    cataloguing.py  a store's objects -> its catalog: made anew, adopted, read back and compared
    restoring.py    what was deleted -> what a bucket still has of it, brought back
    holding.py      the locks of stores, once they are the stores that they should be
    patience.py     how a call is tried again, and how long that may take
    stop.py         the one token that ends every wait
    settings.py     retainer.yaml -> Settings
    planfile.py     the plan file, its rows and its header
    wire.py         connections, through proxies and with certificates, and an end for every answer
    lane.py         how many calls to one server are under way at once
    own.py          what retainer keeps in a store of itself: its identity, its record
    versions.py     what a bucket has of some objects, version by version
    who.py          who runs a command
    whole.py        files that are there whole or not at all
    git.py          what git says of a folder
    signing.py      signatures with SSH keys
    private.py      files that only this user may look into, and that go with the process
    ports.py        what stages need from the outside
    errors.py       every error, its exit code beside its class
    database.py     the DuckDB that every stage works on
    starter/        what `retainer init` writes

    model/          the nouns: frozen dataclasses, standard library only;
                    tables.py and catalog.py name the columns of facts
    policy/         YAML -> rules: files (what may lie there), load (positions),
                    schema (what is allowed), parse, lint (mistakes across files), advice (what is
                    allowed and hardly meant), changes (two policies in words), codes
                                                        ◀ a new condition: model/rule.py,
                                                          schema.py, parse.py, plan/predicates.py
    inventory/      what exists: collect (every list at once), listing (how one went), asset_list
                    (100ms's) and store_list, gone on with by a bookmark, bucket_report (in place of
                    a list), locate (path -> key, key -> asset), shapes (what a path tells), facts
                    (tables)
    plan/           THE DECISION, pure: matching, predicates, decide.sql (start here), lines.sql,
                    ahead.sql (later days), limits
    apply/          THE EFFECTS: job (what a run works with), run (the order of things), copies,
                    locks (of what is kept), deletes, places (which honour what, which refuse),
                    outcomes (journal, summary, catalogs), lately (what is asked of today again);
                    settle (what was announced), identify, delete, record (the catalog), compact
                    (it made short); a copy: copy, shared (one download for several), way (how it
                    is made, decided), streams (its bytes), kinds (what they may be), place (done
                    and confirmed), verify; of many objects: many, parts, playlists, uris (one
                    playlist), manifest
    journal/        THE RECORD: journal (a segment for each run), entry (one line, hash chain),
                    ledger (what all lines come to), backend (where it lies: folder, or shared, a
                    store), lock (one apply per store), freeze, anchors (what stores remember of
                    it), stores (which lies where), shards (what many machines leave there for one
                    another)
    sources/        the 100ms API, answers (its calls), media (bytes), words (its errors);
                    inventory_reports (a bucket's own, in place of a list): s3_inventory and
                    storage_insights say how each cloud writes them
    stores/         wire (one call), calls (what a cloud's protocol must say: s3_calls, s3_answers,
                    gcs_calls and gcs_answers; no I/O),
                    lifecycles, hidden and traits (what a bucket tells of itself), s3_account
                    (boto3), gcs_account (Google's), reads and writes (what every call means),
                    proofs (what a server honours), s3 and gcs (what differs), local (folders)
    views/          page (what a page says, as a value); a module for each thing told: plan, impact,
                    changes, forecast, run, explanation, standing, census, mistakes, outcomes
                    (words: what they share); a renderer for each form: terminal, markdown, html
                                                        ◀ a new form: one file
                    notice (a chat); machine (JSON, CSV), calendar, metrics and annotations (CI)
                    tell the values themselves
    demo/           a strict stand-in for the 100ms API, and the story that `retainer demo` tells
"""
