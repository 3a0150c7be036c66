-- What the decision comes to on later days, if a plan is applied every day at this time of day, all
-- of it succeeds, and nothing else happens: nothing is recorded, and no rule changes. It is the
-- same decision: its clauses begin and end at the moments that decide.sql has worked out, and here
-- each such moment becomes the number of the first plan that is not before it (0: today's).
--
-- What is not known today is not foreseen: where a listing did not finish, a date is not trusted,
-- or a lock or versions could not be read, nothing comes; and what only uncertain matches will ask for is not
-- copied ahead of time.
--
-- Given: weighed, standing, demand, fate, member, counted, stores
-- Asked: $now
-- Made:  prospect (every pair with what comes to it), coming (what comes, in rows)
-- Where recordings are decided range by range, what stands under "Keys that two recordings name" is
-- made once, of all that share a key, as in decide.sql.

CREATE OR REPLACE TEMP MACRO plan_of(moment) AS CASE WHEN moment <= $now THEN 0
    WHEN moment < TIMESTAMP '9000-01-01' THEN ceil((epoch(moment) - epoch($now)) / 86400)::INTEGER
    ELSE 1000000000 END;

-- Keeps that have not begun, and ask for nothing yet since something else lasts until then.
CREATE OR REPLACE TEMP TABLE later AS
SELECT asset_no, store::place AS store, min(begins) FILTER (certain) AS begins,
    min(begins) AS opens, arg_min(clause_no, (begins, clause_no)) FILTER (certain) AS asked_by
FROM member JOIN standing USING (cohort_no)
WHERE kind = 'keep' AND NOT runs AND begins > $now AND isfinite(begins)
GROUP BY asset_no, store;

CREATE OR REPLACE TEMP TABLE expected AS
WITH frozen_until AS (
    SELECT cohort_no, max(ends) AS free_at FROM standing WHERE kind = 'hold' GROUP BY cohort_no
), pair AS (
    SELECT coalesce(weighed.asset_no, later.asset_no) AS asset_no,
        coalesce(weighed.store, later.store) AS store,
        coalesce(there, false) AS there, coalesce(complete, false) AS complete, verdict,
        coalesce(open, false) AS open, shared, coalesce(because, []) AS because,
        weighed.clause_no, weighed.bytes, begins, opens, asked_by
    FROM (FROM weighed WHERE store NOT IN ('hosted', 'elsewhere')) AS weighed
    FULL JOIN later ON later.asset_no = weighed.asset_no AND later.store = weighed.store
), lain AS (
    -- before it is joined, so that no join holds the keys of every object
    SELECT asset_no, store::place AS store, bytes, len(objects) AS objects, owners_known,
        locked_until
    FROM counted
), dated_pair AS (
    SELECT pair.* EXCLUDE (bytes), coalesce(pair.bytes, lain.bytes, member.size) AS bytes,
        coalesce(lain.objects, 1) AS objects, filled, rank, type,
        member.created, hosted, elsewhere, keep_until, fate.erasure,
        member.created + INTERVAL 15 DAY AS lapse,
        coalesce(fate.erasure, demand.deleted_by, pair.clause_no) AS ends_by,
        CASE
            WHEN verdict = 'due' AND list_has_any(because, ['unknown', 'untrusted-time']) THEN NULL
            WHEN erasure IS NOT NULL THEN greatest($now, coalesce(keep_until, $now))
            WHEN member.created IS NULL OR member.settled IS NOT TRUE
                OR (there AND owners_known IS NOT TRUE) THEN NULL
            WHEN earliest_delete IS NOT NULL
                THEN greatest(earliest_delete, coalesce(keep_until, earliest_delete))
            WHEN verdict = 'due' THEN $now
        END AS ends_at,
        coalesce(free_at, $now) AS held_until,
        greatest(coalesce(free_at, $now), CASE WHEN lain.locked_until > $now
            THEN lain.locked_until WHEN verdict = 'due'
                AND list_has_any(because, ['lock', 'versions', 'second-factor'])
            THEN TIMESTAMP 'infinity' ELSE $now END) AS free_at
    FROM pair
    JOIN member USING (asset_no)
    JOIN assets USING (asset_no)
    LEFT JOIN stores ON stores.store = pair.store::VARCHAR
    LEFT JOIN lain ON lain.asset_no = pair.asset_no AND lain.store = pair.store
    LEFT JOIN fate ON fate.cohort_no = member.cohort_no
    LEFT JOIN frozen_until ON frozen_until.cohort_no = member.cohort_no
    LEFT JOIN demand ON demand.cohort_no = member.cohort_no AND demand.store = pair.store
)
SELECT * EXCLUDE (ends_at, free_at),
    CASE WHEN ends_at IS NULL OR (erasure IS NULL
        AND asset_no IN (SELECT asset_no FROM weighed WHERE verdict = 'unknown')) THEN 1000000000
        ELSE plan_of(greatest(ends_at, free_at)) END AS free_on,
    CASE WHEN verdict = 'copy' THEN 0
         WHEN verdict = 'waiting' AND list_contains(because, 'doubtful')
            THEN plan_of(lapse - INTERVAL 96 HOUR)
         WHEN begins IS NOT NULL AND NOT complete AND filled THEN plan_of(begins)
    END AS may_copy_on
FROM dated_pair;

-- A copy needs something to be read from on its day: another store's, or 100ms's.
CREATE OR REPLACE TEMP TABLE made AS
SELECT here.asset_no, here.store, any_value(here.may_copy_on) AS copied_on,
    arg_min(there.store::VARCHAR, there.rank) FILTER (there.complete) AS source
FROM expected AS here LEFT JOIN expected AS there ON there.asset_no = here.asset_no
    AND there.store <> here.store AND (there.complete OR there.may_copy_on < here.may_copy_on)
    AND there.free_on >= here.may_copy_on
WHERE here.may_copy_on IS NOT NULL
GROUP BY here.asset_no, here.store
HAVING any_value(here.may_copy_on) = 0 OR count(there.store) > 0 OR bool_or(here.elsewhere)
    OR bool_or(here.hosted AND $now + to_days(here.may_copy_on) < here.lapse);

-- On which plans something is required elsewhere and is not complete, so that no delete of the
-- recording runs: [from, till).
CREATE OR REPLACE TEMP TABLE waits AS
SELECT asset_no, list(struct_pack(store := store, "from" := begin, till := till)
    ORDER BY begin) AS spans
FROM (
    SELECT expected.asset_no, expected.store, CASE WHEN open THEN 0 ELSE plan_of(opens) END AS begin,
        CASE WHEN copied_on IS NOT NULL THEN copied_on + 1
            ELSE plan_of(greatest(held_until, coalesce(keep_until, held_until))) END AS till
    FROM expected LEFT JOIN made USING (asset_no, store)
    WHERE NOT complete AND (open OR opens IS NOT NULL)
) GROUP BY asset_no;

-- Every pair as if no other recording named its key.
CREATE OR REPLACE TEMP TABLE foreseen AS
SELECT expected.*, copied_on, source,
    CASE WHEN spans IS NULL OR free_on = 1000000000 THEN free_on ELSE list_reduce(
        list_prepend(struct_pack(store := expected.store, "from" := -1, till := free_on),
            list_filter(spans, lambda span: span.store <> expected.store)),
        lambda so_far, span: CASE WHEN span."from" <= so_far.till AND so_far.till < span.till
            THEN struct_pack(store := so_far.store, "from" := -1, till := span.till)
            ELSE so_far END).till END AS gone_alone
FROM expected LEFT JOIN made USING (asset_no, store) LEFT JOIN waits USING (asset_no)
WHERE there OR copied_on IS NOT NULL;

-- ── Keys that two recordings name ────────────────────────────────────────────────────────────────
-- Such a key goes only when both may.
CREATE OR REPLACE TEMP TABLE together AS
SELECT store, shared, max(gone_alone) AS both_gone FROM foreseen WHERE shared IS NOT NULL
GROUP BY store, shared;

-- ── What comes ───────────────────────────────────────────────────────────────────────────────────
CREATE OR REPLACE TEMP TABLE prospect AS
SELECT asset_no, store, type, there, complete, bytes, objects, created, source, copied_on,
    coalesce(asked_by, clause_no) AS copied_by, ends_by AS deleted_by,
    nullif(coalesce(both_gone, gone_alone), 1000000000) AS deleted_on
FROM foreseen LEFT JOIN together USING (store, shared);

CREATE OR REPLACE TEMP VIEW coming AS
SELECT asset_no, store::VARCHAR AS store, 'copy' AS what, copied_on AS plan, copied_by AS clause_no,
    bytes, false AS is_last FROM prospect WHERE copied_on IS NOT NULL
UNION ALL
-- It is the last copy where none that is complete, or will be, lies there any longer.
SELECT asset_no, store::VARCHAR, 'delete', deleted_on, deleted_by, bytes, is_last FROM (
    SELECT *, deleted_on >= coalesce(max(coalesce(deleted_on, 1000000000))
        FILTER (complete OR copied_on IS NOT NULL) OVER (PARTITION BY asset_no), -1) AS is_last
    FROM prospect
) WHERE deleted_on IS NOT NULL
UNION ALL
-- What leaves 100ms by itself and is nowhere else, since nothing asks for it.
SELECT asset_no, 'hosted', 'leaves', plan_of(until), NULL, bytes, true
    FROM weighed WHERE verdict = 'lapses' AND list_contains(because, 'not-kept');
