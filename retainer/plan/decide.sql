-- What is decided for every pair of an asset and a store: DESIGN.md, section 5, sentence by
-- sentence.
--
-- Given:  assets, with lies_hosted and lies_elsewhere: where 100ms has it, and lies_nowhere: it was
--         asked for, and 100ms said that it is not there;
--         copies, listings (retainer/model/tables.py);
--         clauses(clause_no, item_no, kind, store, begins_after, ends_after, legal, released, cooled,
--         versions);
--         periods(period_no, months, days, micros, forever);
--         items(item_no, position), named(item_no, fact, rest_no): how matches is read;
--         stores(store, scheme, rank, filled): whether retainer fills it, or 100ms does;
--         doubts(clause_no, item_no, store, doubt): what copies remember that a keep asked for;
--         accepted(asset_id): partial copies that count, and excused(asset_id): losses that are no
--         alarm, by what people wrote;
--         offsets(since, shift): the zone's clock.
-- Asked:  $now (cut to the second), $start_of_day (in the policy's zone),
--         $matches with $joins (what matches, as text: plan/matching.py),
--         $hourly (true where a matching clause counts in hours).
-- Made:   decided, one row for every pair; clashes;
--         and cohort, member, standing, demand, fate, weighed on the way.
-- Where recordings are decided range by range, all of this is made anew for each range; only what
-- stands under "Keys that two assets name" is made once, of all recordings that share a key.
--
-- A million assets are copied from table to table no more often than they must be: rows are only
-- dropped or joined once, and everything that many assets share is worked out before it meets them.

-- ── An asset's age ─────────────────────────────────────────────────────────────────────────────
-- A date is trusted from 2015 on and until 5 minutes from now; created_at is NULL where it is not
-- RFC 3339 with a zone.
CREATE OR REPLACE TEMP VIEW dated AS
SELECT *, CASE WHEN created_at >= TIMESTAMP '2015-01-01'
    AND created_at <= $now + INTERVAL 5 MINUTE THEN created_at END AS created FROM assets;

-- ── What matches, and its local day ──────────────────────────────────────────────────────────────
-- The local day of a moment. Since 2015 every zone's clock has changed at a quarter of an hour, and
-- its days begin at one.
CREATE OR REPLACE TEMP TABLE slots AS
SELECT slot, (slot + shift)::DATE AS day
FROM (SELECT DISTINCT time_bucket(INTERVAL 15 MINUTE, created) AS slot FROM dated
    WHERE created IS NOT NULL) AS bucket
ASOF JOIN offsets ON slot >= since;

CREATE OR REPLACE TEMP TABLE known AS
SELECT
    asset_no, asset_id, size, created, settled,
    -- What was not there is not asked for again each night; but while it is young, and once more
    -- before it leaves, since a server can be wrong, or not be done.
    lies_nowhere AND NOT coalesce($now < created + INTERVAL 1 DAY OR ($now >= created
        + INTERVAL 15 DAY - INTERVAL 48 HOUR AND $now < created + INTERVAL 15 DAY), false)
        AS is_gone,
    dated.lies_hosted AND NOT is_gone AS lies_hosted,
    dated.lies_elsewhere AND NOT is_gone AS lies_elsewhere,
    coalesce(status = 'failed', false) AS failed,
    -- Any word but completed and failed means "not yet", and so does a record without a path;
    -- within a day it may be believed. Of what has failed a file may exist all the same where its
    -- path and size are told.
    coalesce(CASE WHEN failed THEN path IS NULL OR size IS NULL
        ELSE (status <> 'completed' OR (path IS NULL AND NOT dated.lies_hosted))
            AND created > $now - INTERVAL 1 DAY END, false) AS unready,
    dated.lies_hosted AND NOT is_gone AND NOT unready AS hosted,
    dated.lies_elsewhere AND NOT is_gone AND NOT unready AS elsewhere,
    $matches AS matches,
    slots.day,
    CASE WHEN $hourly THEN created END AS exact
FROM dated $joins LEFT JOIN slots ON slots.slot = time_bucket(INTERVAL 15 MINUTE, created);

-- Assets alike in everything that matches them and in their day (or moment, where hours count)
-- share every date below, so the dates are worked out once per cohort, not once per asset.
CREATE OR REPLACE TEMP TABLE cohort AS
SELECT (row_number() OVER ())::INTEGER AS cohort_no, matches, day, exact
FROM (SELECT DISTINCT matches, day, exact FROM known);

CREATE OR REPLACE TEMP TABLE member AS
SELECT known.* EXCLUDE (matches, day, exact), cohort_no
FROM known JOIN cohort
  ON known.matches = cohort.matches
 AND coalesce(known.day, DATE '0001-01-01') = coalesce(cohort.day, DATE '0001-01-01')
 AND coalesce(known.exact, TIMESTAMP '0001-01-01') = coalesce(cohort.exact, TIMESTAMP '0001-01-01');
DROP TABLE known;

-- The items that match the assets of a cohort, for certain or not. Those that were looked at one by
-- one have a letter each; those that were joined by what they name have a number each where the
-- name fits, and where it could not be read, what they ask besides it decides.
CREATE OR REPLACE TEMP TABLE matched AS
WITH hit AS (
    SELECT cohort_no, code::INTEGER // 2 AS item_no, code::INTEGER % 2 = 1 AS certain
    FROM (SELECT cohort_no, unnest(string_split(split_part(matches, '|', 2), ' ')) AS code
        FROM cohort) WHERE code <> ''
), doubtful AS (
    SELECT cohort_no, unnest(string_split(split_part(matches, '|', 3), ',')) AS fact,
        split_part(matches, '|', 4) AS rests
    FROM cohort WHERE split_part(matches, '|', 3) <> ''
)
SELECT cohort_no, item_no, substr(matches, position, 1) = 'y' AS certain FROM cohort JOIN items
    ON substr(matches, position, 1) <> 'n'
UNION ALL
FROM hit
UNION ALL
SELECT cohort_no, item_no, false FROM doubtful JOIN named USING (fact)
    WHERE substr(rests, rest_no, 1) <> 'n';

-- ── When periods end ─────────────────────────────────────────────────────────────────────────────
-- A calendar period ends at the start of the day after local date + period, in the policy's zone.
CREATE OR REPLACE TEMP TABLE period_end AS
SELECT day, period_no, $start_of_day AS moment
FROM (SELECT DISTINCT day FROM cohort WHERE day IS NOT NULL)
CROSS JOIN (SELECT * FROM periods WHERE NOT forever AND micros = 0);

-- ── What each matching clause asks for ───────────────────────────────────────────────────────────
-- Without a trusted date keeps run and are endless, and deletes count as due. Deletes, at_most and
-- erasures need a certain yes.
CREATE OR REPLACE TEMP TABLE claim AS
WITH asked AS (
    SELECT cohort_no, day, exact, clauses.*, certain
    FROM cohort JOIN matched USING (cohort_no) JOIN clauses USING (item_no)
    WHERE kind IN ('keep', 'hold') OR certain
), timed AS (
    SELECT asked.* EXCLUDE (day, exact),
        CASE WHEN asked.day IS NULL OR first.period_no IS NULL THEN TIMESTAMP '-infinity'
             WHEN first.micros > 0 THEN exact + to_microseconds(first.micros)
             ELSE first_end.moment END AS begins,
        CASE WHEN kind = 'hold' THEN coalesce(released, TIMESTAMP 'infinity')
             WHEN asked.day IS NULL THEN CASE kind
                 WHEN 'keep' THEN TIMESTAMP 'infinity' ELSE TIMESTAMP '-infinity' END
             WHEN last.forever OR last.period_no IS NULL THEN TIMESTAMP 'infinity'
             WHEN last.micros > 0 THEN exact + to_microseconds(last.micros)
             ELSE last_end.moment END AS ends
    FROM asked
    LEFT JOIN periods AS first ON first.period_no = asked.begins_after
    LEFT JOIN periods AS last ON last.period_no = asked.ends_after
    LEFT JOIN period_end AS first_end ON first_end.day = asked.day
        AND first_end.period_no = asked.begins_after
    LEFT JOIN period_end AS last_end ON last_end.day = asked.day
        AND last_end.period_no = asked.ends_after
), erased AS (
    SELECT cohort_no, min(clause_no) AS erasure FROM timed WHERE kind = 'erasure' GROUP BY cohort_no
)
-- Where an erasure matches, only keeps with `basis: legal` count, here and everywhere below.
SELECT timed.*, erased.erasure
FROM timed LEFT JOIN erased USING (cohort_no)
WHERE kind <> 'keep' OR legal OR erased.erasure IS NULL;

-- A keep runs from `begins` to `ends`. One that has not begun counts as running too, unless a
-- certain keep that runs in another store, or a certain hold, lasts until it begins: so no gap is
-- left in which the last copy goes. What earlier policies promised only adds to what is kept.
CREATE OR REPLACE TEMP TABLE standing AS
WITH bridge AS (
    SELECT cohort_no, kind, store, ends FROM claim
    WHERE certain AND (kind = 'hold' OR (kind = 'keep' AND begins <= $now AND $now < ends))
        AND NOT cooled
), bridged AS (
    SELECT DISTINCT later.cohort_no, later.clause_no
    FROM claim AS later JOIN bridge ON bridge.cohort_no = later.cohort_no
     AND bridge.ends >= later.begins AND (bridge.kind = 'hold' OR bridge.store <> later.store)
    WHERE later.kind = 'keep' AND later.begins > $now
)
SELECT claim.*,
    CASE kind WHEN 'hold' THEN true
              WHEN 'keep' THEN $now < ends AND (begins <= $now OR bridged.clause_no IS NULL)
              ELSE false END AS runs
FROM claim LEFT JOIN bridged USING (cohort_no, clause_no);

-- ── What is asked of each store ──────────────────────────────────────────────────────────────────
CREATE OR REPLACE TEMP TABLE demand AS
WITH placed AS (
    SELECT * FROM standing WHERE kind IN ('keep', 'hold', 'delete')
    UNION ALL
    SELECT standing.* REPLACE (stores.store AS store) FROM standing CROSS JOIN stores
        WHERE kind = 'at_most'
)
SELECT
    cohort_no, store::place AS store,
    bool_or(kind IN ('keep', 'hold')) AS named,
    bool_or(runs AND certain) AS surely_wanted,
    bool_or(runs) AS wanted,
    bool_or(kind = 'hold') AS held_here,
    arg_max(clause_no, (certain, ends, -clause_no)) FILTER (runs) AS wanted_by,
    max(ends) FILTER (kind = 'keep') AS keep_until,
    arg_max(clause_no, (ends, -clause_no)) FILTER (kind = 'keep') AS kept_by,
    -- Nobody may be able to take a lock back: only what asks for certain, and asks today, and
    -- never beyond a ceiling.
    least(coalesce(max(ends) FILTER (kind = 'keep' AND certain AND NOT cooled),
        TIMESTAMP '-infinity'), min(ends) FILTER (kind = 'at_most')) AS lock_until,
    -- Only once it is due itself, by a date that is known: this is for good.
    min(clause_no) FILTER (versions AND isfinite(ends) AND ends <= $now) AS purged_by,
    min(ends) FILTER (kind IN ('delete', 'at_most')) AS earliest_delete,
    arg_min(clause_no, (ends, clause_no)) FILTER (kind IN ('delete', 'at_most')) AS deleted_by
FROM placed GROUP BY cohort_no, store;

CREATE OR REPLACE TEMP TABLE fate AS
SELECT cohort_no, max(erasure) AS erasure, min(clause_no) FILTER (kind = 'hold') AS held_by,
    min(clause_no) FILTER (kind = 'hold' AND certain) AS surely_held_by,
    cohort_no IN (SELECT cohort_no FROM matched JOIN clauses USING (item_no)
        WHERE kind = 'erasure' AND NOT certain) AS may_be_erased
FROM standing GROUP BY cohort_no;

-- A certain keep that reaches beyond an at_most wins, and is a clash.
CREATE OR REPLACE TEMP TABLE clashes AS
WITH clashing AS (
    SELECT DISTINCT ceiling.cohort_no, ceiling.item_no AS ceiling_no, keep.item_no AS keep_no
    FROM standing AS ceiling JOIN standing AS keep USING (cohort_no)
    WHERE ceiling.kind = 'at_most' AND keep.kind = 'keep' AND keep.certain
        AND keep.ends > ceiling.ends AND ceiling.erasure IS NULL
      AND isfinite(ceiling.ends)
)
SELECT ceiling_no, keep_no, count(*) AS assets
FROM clashing JOIN member USING (cohort_no) GROUP BY ALL ORDER BY ALL;

-- ── Every pair ───────────────────────────────────────────────────────────────────────────────────
-- A store where something of the asset lies, or that a keep that matches or a hold names; for an
-- erased asset also every store whose listing did not finish. Where a keep has ended, nothing lies
-- and the listing finished, the decision is `none`, and such a pair has no row (there are many of
-- them).
CREATE OR REPLACE TEMP VIEW unfinished AS
SELECT name::place AS store FROM listings WHERE kind = 'store' AND NOT complete;

-- A partial copy counts once a person has accepted it, and as long as its upload is what it was.
CREATE OR REPLACE TEMP TABLE good_enough AS
SELECT asset_no FROM member WHERE asset_id IN (FROM accepted);
CREATE OR REPLACE TEMP VIEW counted AS
SELECT * REPLACE (coalesce(complete, false) OR (partial IS NOT NULL AND superseded IS NOT TRUE
    AND asset_no IN (FROM good_enough)) AS complete)
FROM copies;

-- What a snapshot leaves open is never taken for the better: not complete, locked, owners not
-- known.
CREATE OR REPLACE TEMP VIEW lying AS
SELECT asset_no, store::place AS store, complete, partial IS NOT NULL AS partial, bytes, shared,
    coalesce(owners_known, false) AS owners_known,
    coalesce(locked_until > $now, NOT coalesce(lock_read, false)) AS locked,
        coalesce(superseded, false) AS superseded,
    coalesce(uncatalogued, false) AS uncatalogued, in_doubt,
    versions IS NOT NULL AS versions_read, by_hand IS NOT NULL AS by_hand,
    list_sum(list_transform(versions, lambda v: v.size))::BIGINT AS bytes_of_all
FROM counted;

-- The pairs of which nothing lies there:
CREATE OR REPLACE TEMP TABLE missing AS
SELECT asset_no, store FROM (
    SELECT asset_no, demand.store FROM member JOIN demand USING (cohort_no)
    WHERE wanted OR (named AND demand.store IN (FROM unfinished))
) ANTI JOIN lying USING (asset_no, store)
UNION
SELECT asset_no, store FROM (
    SELECT asset_no, store FROM member JOIN fate USING (cohort_no) CROSS JOIN unfinished
        WHERE erasure IS NOT NULL
) ANTI JOIN lying USING (asset_no, store);

-- Of the assets that lack something somewhere: those of which a complete copy lies in a store.
CREATE OR REPLACE TEMP TABLE safe AS
SELECT DISTINCT asset_no FROM lying
WHERE complete AND asset_no IN (SELECT asset_no FROM missing UNION ALL SELECT asset_no FROM lying
    WHERE NOT complete);

-- What was copied since a rule was not certain, and is certain by now not to ask for it. After a
-- while nobody means that any more: what another rule has kept since is not undone for it.
CREATE OR REPLACE TEMP TABLE undone AS
SELECT asset_no, lying.store, min(clause_no) AS undone_by
FROM lying JOIN doubts ON doubts.doubt = in_doubt AND doubts.store::place = lying.store
JOIN member USING (asset_no)
WHERE complete AND $now < created + INTERVAL 45 DAY
    AND (cohort_no, item_no) NOT IN (SELECT (cohort_no, item_no) FROM matched)
GROUP BY ALL;

-- Of what 100ms hosts: what no keep or hold asks for, and no erasure, and no store has. It is gone
-- when it lapses.
CREATE OR REPLACE TEMP TABLE forgone AS
SELECT asset_no FROM member JOIN fate USING (cohort_no) WHERE lies_hosted AND erasure IS NULL
    AND cohort_no NOT IN (SELECT cohort_no FROM demand WHERE named)
UNION ALL
SELECT asset_no FROM member WHERE lies_hosted AND cohort_no NOT IN (SELECT cohort_no FROM fate)
EXCEPT ALL SELECT asset_no FROM lying WHERE complete;

-- ── The decision ─────────────────────────────────────────────────────────────────────────────────
-- What each pair comes to by itself; `due` is a delete that what lies elsewhere may still block.
-- Moments are compared to the microsecond, so that nothing is deleted early; views cut them to the
-- second.
CREATE OR REPLACE TEMP TABLE weighed AS
WITH pair AS (
    SELECT asset_no, store, true AS there, complete, partial, bytes, shared, owners_known, locked,
        superseded, uncatalogued, in_doubt, versions_read, by_hand, bytes_of_all FROM lying
    UNION ALL BY NAME
    SELECT asset_no, store, false AS there, false AS complete FROM missing
    UNION ALL BY NAME
    -- What lies hosted or elsewhere has a row of its own; not so what was hosted more than 15 days
    -- ago.
    SELECT asset_no, 'hosted'::place AS store, true AS there, true AS complete FROM member
        WHERE lies_hosted AND (created IS NULL OR $now < created + INTERVAL 15 DAY)
    UNION ALL BY NAME
    SELECT asset_no, 'elsewhere'::place AS store, true AS there, true AS complete FROM member
        WHERE lies_elsewhere
), asked AS (
    SELECT pair.* EXCLUDE (bytes, bytes_of_all),
        coalesce(CASE WHEN purged_by IS NOT NULL THEN bytes_of_all END, bytes, size) AS bytes,
        member.* EXCLUDE (asset_no, cohort_no, size, lies_hosted, lies_elsewhere),
        fate.erasure, fate.held_by, fate.surely_held_by, fate.may_be_erased,
        demand.* EXCLUDE (cohort_no, store, named, held_here),
        coalesce(demand.named, false) AS named, demand.held_here,
        safe.asset_no IS NOT NULL AS safe, undone_by, asking.doubt AS asking,
        created + INTERVAL 15 DAY AS lapse,
        -- never before the keeps are over; NULL (never) without a delete
        CASE WHEN earliest_delete IS NOT NULL THEN greatest(earliest_delete,
            coalesce(keep_until, earliest_delete)) END AS delete_from,
        -- needed: a certain keep runs there, or a certain hold names it; one that is not certain
        -- only if it is complete there already, or nothing complete lies in any store.
        coalesce(surely_wanted OR (wanted AND (complete OR safe.asset_no IS NULL)),
            false) AS needed,
        coalesce(wanted AND NOT complete, false) AS open,
        -- All that asks for it is not certain, and 100ms has it for a while yet: what is not known
        -- today, such as the rooms' names, may be known by then.
        coalesce(NOT surely_wanted AND (member.hosted OR member.elsewhere)
            AND $now < created + INTERVAL 15 DAY - INTERVAL 96 HOUR, false) AS doubtful,
        pair.store IN (FROM unfinished) AS unseen,
        pair.store IN (SELECT store::place FROM stores WHERE NOT filled) AS by_100ms
    FROM pair
    JOIN member USING (asset_no)
    LEFT JOIN safe USING (asset_no)
    LEFT JOIN fate ON fate.cohort_no = member.cohort_no
    LEFT JOIN demand ON demand.cohort_no = member.cohort_no AND demand.store = pair.store
    LEFT JOIN undone ON undone.asset_no = pair.asset_no AND undone.store = pair.store
    LEFT JOIN doubts AS asking ON asking.clause_no = demand.wanted_by
), judged AS (
    SELECT *,
        CASE
            WHEN store = 'hosted' THEN 'lapses'
            WHEN store = 'elsewhere' THEN 'unmanaged'
            WHEN unseen AND NOT there AND (named OR erasure IS NOT NULL) THEN 'unknown'
            -- What 100ms uploads to is never copied to: it comes from there within days, or not at
            -- all.
            WHEN needed AND NOT complete AND by_100ms THEN CASE
                WHEN created IS NULL OR $now < created + INTERVAL 7 DAY THEN 'waiting'
                WHEN (SELECT bool_and(coalesce(listings.complete, false)) FROM listings) THEN 'lost'
                ELSE 'unknown' END
            WHEN needed AND NOT complete AND doubtful AND NOT safe THEN 'waiting'
            WHEN needed AND NOT complete THEN CASE
                WHEN safe OR elsewhere OR (hosted AND (lapse IS NULL OR $now < lapse)) THEN 'copy'
                WHEN superseded THEN 'keep'
                WHEN unready AND NOT failed THEN 'waiting'
                WHEN failed THEN CASE WHEN created IS NULL
                    OR $now < created + INTERVAL 7 DAY THEN 'waiting' ELSE 'none' END
                WHEN (SELECT bool_and(coalesce(listings.complete, false)) FROM listings) THEN
                    CASE WHEN uncatalogued THEN 'uncatalogued' ELSE 'lost' END
                ELSE 'unknown' END
            WHEN needed THEN 'keep'
            WHEN there AND $now < keep_until THEN 'keep'
            WHEN there AND erasure IS NULL AND $now < delete_from THEN 'keep'
            WHEN there AND (erasure IS NOT NULL OR delete_from IS NOT NULL) THEN 'due'
            WHEN there AND undone_by IS NOT NULL AND NOT named THEN 'due'
            WHEN there THEN 'unmanaged'
            ELSE 'none'
        END::decision AS verdict
    FROM asked
)
SELECT asset_no, asset_id, store, verdict, there, complete, needed, open, bytes, safe,
    CASE
        WHEN verdict = 'due' THEN coalesce(erasure, deleted_by, undone_by)
        WHEN verdict IN ('copy', 'waiting', 'lost', 'uncatalogued') THEN wanted_by
        WHEN verdict = 'unknown' THEN coalesce(wanted_by, kept_by, erasure)
        WHEN verdict = 'keep' AND needed THEN wanted_by
        WHEN verdict = 'keep' AND $now < keep_until THEN kept_by
        WHEN verdict = 'keep' THEN deleted_by
        WHEN verdict = 'lapses' THEN erasure
    END AS clause_no,
    -- What people are told beside it: the hold that certainly covers what is due, or the keep that
    -- was the last to end.
    CASE WHEN verdict = 'due' THEN CASE WHEN held_by IS NOT NULL THEN surely_held_by
        WHEN erasure IS NULL AND keep_until > earliest_delete THEN kept_by END END AS also_no,
    CASE verdict
        WHEN 'keep' THEN CASE
            WHEN held_here OR created IS NULL THEN TIMESTAMP 'infinity'
            WHEN erasure IS NOT NULL THEN keep_until
            ELSE coalesce(delete_from, keep_until) END
        WHEN 'lapses' THEN coalesce(lapse, TIMESTAMP 'infinity')
    END AS until,
    CASE WHEN verdict = 'copy' AND NOT safe THEN CASE
        WHEN created IS NULL THEN $now
        WHEN $now < lapse THEN lapse - INTERVAL 48 HOUR
    END END AS deadline,
    CASE WHEN verdict = 'copy' AND NOT surely_wanted THEN asking
        WHEN verdict = 'due' AND erasure IS NULL AND deleted_by IS NULL THEN in_doubt END AS doubt,
    keep_until, delete_from, created, shared, erasure IS NOT NULL AS erased,
    CASE WHEN isfinite(lock_until) AND date_trunc('second', lock_until) > $now AND NOT may_be_erased
        THEN date_trunc('second', lock_until) END AS lock_until,
    CASE WHEN verdict = 'due' THEN purged_by END AS purged_by,
    CASE WHEN verdict = 'due' THEN list_filter([
        CASE WHEN held_by IS NOT NULL THEN 'hold' END,
        CASE WHEN locked THEN 'lock' END,
        CASE WHEN purged_by IS NOT NULL AND NOT versions_read THEN 'versions' END,
        CASE WHEN purged_by IS NOT NULL AND by_hand THEN 'second-factor' END,
        CASE WHEN created IS NULL AND erasure IS NULL THEN 'untrusted-time' END,
        CASE WHEN (settled AND owners_known) IS NOT TRUE AND erasure IS NULL THEN 'unknown' END
    ], lambda why: why IS NOT NULL)
    WHEN verdict = 'waiting' AND doubtful AND NOT safe AND NOT by_100ms THEN ['doubtful']
    WHEN verdict = 'lost' THEN list_filter([CASE WHEN partial THEN 'partial' END,
        CASE WHEN asset_id IN (FROM excused) THEN 'accepted' END], lambda why: why IS NOT NULL)
    WHEN verdict = 'lapses' AND asset_no IN (FROM forgone) THEN ['not-kept']
    END AS because
FROM judged;

-- What blocks a delete that is due: its own reasons, and what is decided of the asset's other
-- pairs.
CREATE OR REPLACE TEMP TABLE blocked AS
WITH worries AS (
    SELECT asset_no, count(*) FILTER (open) AS open_stores,
        bool_or(verdict = 'unknown') AS some_unknown
    FROM weighed WHERE open OR verdict = 'unknown' GROUP BY asset_no
)
SELECT asset_no, store, shared, purged_by, because || list_filter([
    CASE WHEN some_unknown AND NOT erased
        AND NOT list_contains(because, 'unknown') THEN 'unknown' END,
    CASE WHEN open_stores - open::INT > 0 THEN 'unsatisfied' END
], lambda why: why IS NOT NULL) AS because
FROM weighed LEFT JOIN worries USING (asset_no) WHERE verdict = 'due';

-- ── Keys that two assets name ────────────────────────────────────────────────────────────────────
-- Such a key is deleted only when both may go.
CREATE OR REPLACE TEMP TABLE sharing AS
SELECT weighed.store, weighed.shared,
    bool_and(blocked.because IS NOT NULL AND blocked.because = [])
        -- what one of them deletes for good, the other may want back
        AND count(blocked.purged_by) IN (0, count(*)) AS all_go
FROM weighed LEFT JOIN blocked USING (asset_no, store)
    WHERE weighed.shared IS NOT NULL GROUP BY weighed.store, weighed.shared;

-- ── What is due, and may go ──────────────────────────────────────────────────────────────────────
CREATE OR REPLACE TEMP TABLE due AS
-- of a key that is shared, and of which nothing was found out, nobody knows that all may go
SELECT asset_no, store, CASE WHEN because = [] AND NOT coalesce(all_go, shared IS NULL)
    THEN ['shared']
    ELSE because END AS because
FROM blocked LEFT JOIN sharing USING (store, shared);

CREATE OR REPLACE TEMP VIEW decided AS
SELECT weighed.* EXCLUDE (because, open, shared, erased),
    coalesce(due.because, weighed.because, []) AS because,
    CASE WHEN verdict <> 'due' THEN verdict WHEN due.because = [] THEN 'delete'::decision
        ELSE 'blocked'::decision END AS decision
FROM weighed LEFT JOIN due USING (asset_no, store);
