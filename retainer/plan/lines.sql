-- The plan's rows, and what puts them in order: what is quiet (kept, unmanaged, or lapses) by asset
-- and store; then by `n`: copies by deadline, copies without one, deletes, what is kept and to be
-- locked longer, and the rest that someone may worry about.
--
-- Given: weighed, decided, member, dated, assets, copies, stores; names(clause_no, rule, rule_at)
-- Asked: $now, $locking (the stores that lock their copies), $filled (those that retainer copies
--        to), $target (the key of a new copy, by store), $beside (the same, beside an older one),
--        $out_of_scope (whether --only leaves an asset out), $final (the stores whose locks nobody
--        can take back), $unlockable (those whose buckets lock nothing),
--        $metadata (the metadata that a plan tells)
-- Made:  locking, acting, staying; lines, with the columns of planfile.COLUMNS and what puts them in
--        order over several ranges, and quiet_lines, with some of them

-- Whose complete copies in stores must all be restored from an archive before they can be read.
CREATE OR REPLACE TEMP TABLE frozen AS
SELECT asset_no FROM counted WHERE complete
    AND asset_no IN (SELECT asset_no FROM counted WHERE archived)
GROUP BY asset_no HAVING bool_and(coalesce(archived, false));

-- Deletes of a folder in which something lies that none of the copies that make it safe has (by its
-- name, and its size unless it is a playlist, which a copy may have rewritten).
CREATE OR REPLACE TEMP TABLE bare AS
WITH going AS (
    SELECT decided.asset_no, decided.store, folder, unnest(objects) AS object
    FROM decided JOIN counted AS copies ON copies.asset_no = decided.asset_no
        AND copies.store = decided.store::VARCHAR
    WHERE decision = 'delete' AND folder IS NOT NULL
), kept AS (
    SELECT decided.asset_no, folder, unnest(objects) AS object
    FROM decided JOIN counted AS copies ON copies.asset_no = decided.asset_no
        AND copies.store = decided.store::VARCHAR
    WHERE decided.complete AND needed AND decision <> 'delete'
        AND decided.asset_no IN (SELECT asset_no FROM going)
), named AS (
    -- A manifest.json of somebody else's lies in a copy as _manifest.json, beside retainer's own.
    SELECT asset_no, store, object.size AS size, store::VARCHAR IN ($filled)
        AND ends_with(object.key, 'manifest.json') AS is_manifest,
        CASE WHEN object.key = folder || 'manifest.json'
            AND store::VARCHAR NOT IN ($filled) THEN '_manifest.json'
             WHEN starts_with(object.key, folder) THEN object.key[len(folder) + 1:]
             ELSE 'thumbnails/' || parse_filename(object.key) END AS name
    FROM going WHERE asset_no IN (SELECT asset_no FROM kept)
)
SELECT DISTINCT asset_no, store FROM named
WHERE NOT EXISTS (
    SELECT 1 FROM kept WHERE kept.asset_no = named.asset_no
        AND named.name = CASE WHEN starts_with(kept.object.key,
            coalesce(kept.folder, kept.object.key)) AND kept.folder IS NOT NULL
                              THEN kept.object.key[len(kept.folder) + 1:]
                                  ELSE parse_filename(kept.object.key) END
        AND (kept.object.size = named.size OR lower(named.name) LIKE '%.m3u8' OR is_manifest)
);

-- What is kept where copies are locked, and is not known to be locked until the keep is over.
CREATE OR REPLACE TEMP TABLE locking AS
SELECT asset_no, weighed.store, coalesce(lock_mode,
    CASE WHEN weighed.store IN ($final) THEN 'compliance' ELSE 'governance' END) AS lock_mode
FROM weighed JOIN counted USING (asset_no)
WHERE verdict = 'keep' AND weighed.complete AND weighed.store IN ($locking)
    AND counted.store = weighed.store::VARCHAR
    AND lock_until > coalesce(locked_through, TIMESTAMP '-infinity')
    AND weighed.store NOT IN ($unlockable) AND NOT ($out_of_scope)
    -- A lock that nobody could take back is made no longer where the settings ask for another one.
    AND NOT coalesce(lock_mode = 'compliance' AND weighed.store NOT IN ($final)
        AND locked_through > $now, false);

CREATE OR REPLACE TEMP TABLE acting AS
WITH marked AS (
    SELECT decided.* EXCLUDE (asset_id, verdict, purged_by), hosted, elsewhere, lock_mode,
        CASE WHEN decision = 'delete' THEN purged_by END AS purged_by,
        decision = 'copy' AND asset_no IN (FROM frozen) AND NOT elsewhere
            AND NOT (hosted AND (decided.created IS NULL
                OR $now < decided.created + INTERVAL 15 DAY)) AS thaw
    FROM decided JOIN member USING (asset_no) LEFT JOIN locking USING (asset_no, store)
        WHERE verdict NOT IN ('keep', 'unmanaged', 'lapses', 'none') OR lock_mode IS NOT NULL
), told AS (
    SELECT * EXCLUDE (because, is_bare),
        CASE WHEN decision NOT IN ('copy', 'keep', 'delete')
                 THEN nullif(array_to_string(because, ', '), '')
             WHEN $out_of_scope THEN 'out-of-scope'
             WHEN is_bare THEN 'uncovered'
             WHEN thaw THEN 'archived' END AS because
    FROM (
        SELECT marked.*, bare.asset_no IS NOT NULL AS is_bare
        FROM marked LEFT JOIN bare ON bare.asset_no = marked.asset_no AND bare.store = marked.store
    )
)
SELECT (row_number() OVER (ORDER BY turn, CASE turn WHEN 0 THEN deadline END, asset_no,
    store))::INTEGER - 1 AS n, *
FROM (
    SELECT *, CASE WHEN because IS NOT NULL THEN 4 WHEN decision = 'copy' AND deadline IS NOT NULL
        THEN 0 WHEN decision = 'copy' THEN 1 WHEN decision = 'delete' THEN 2
        WHEN decision = 'keep' THEN 3 ELSE 4 END AS turn FROM told
);

CREATE OR REPLACE TEMP TABLE held AS
SELECT asset_no, store, complete, coalesce(archived, false) AS archived, folder, objects, broken,
    superseded, made_of, made_of_version, partial, versions
FROM counted
WHERE objects IS NOT NULL AND asset_no IN (SELECT asset_no FROM acting
    WHERE decision IN ('copy', 'keep', 'delete'));

-- Where a copy is read from: a store of the same kind of cloud first, in the order they are
-- declared; else 100ms. Nothing is read from an archive while something else has it.
CREATE OR REPLACE TEMP TABLE reading AS
SELECT * EXCLUDE (best), best.source, best.folder, best.made_of, best.made_of_version,
    best.partial,
    list_filter(best.objects, lambda o: o.complete) AS whole
FROM (
    SELECT acting.asset_no, acting.store, decision,
        arg_min(struct_pack(source := held.store, folder := folder, objects := held.objects,
            made_of := held.made_of,
            made_of_version := held.made_of_version, partial := held.partial),
                (held.partial IS NOT NULL, archived, here.scheme <> there.scheme, there.rank)) AS best
    FROM acting
    JOIN held ON held.asset_no = acting.asset_no AND held.complete AND (thaw OR NOT archived)
        -- an accepted part is no source while 100ms may have the whole
        AND (held.partial IS NULL OR NOT (elsewhere OR (hosted AND (acting.created IS NULL
            OR $now < acting.created + INTERVAL 15 DAY))))
    JOIN stores AS there ON there.store = held.store
    JOIN stores AS here ON here.store = acting.store
    WHERE decision = 'copy'
    GROUP BY ALL
);

-- The complete copies that make a delete safe are those that the asset needs; and without a
-- complete copy that stays, a delete takes the last one.
CREATE OR REPLACE TEMP TABLE staying AS
SELECT asset_no, 'delete'::decision AS decision,
    list(struct_pack(store := store, key := object.key, size := object.size,
        version := object.version) ORDER BY store, object.key)
        FILTER (needed) AS witnesses
FROM (
    SELECT decided.asset_no, held.store, needed, unnest(held.objects) AS object
    FROM decided JOIN held ON held.asset_no = decided.asset_no
        AND held.store = decided.store::VARCHAR
    WHERE decided.complete AND decision <> 'delete'
        AND decided.asset_no IN (SELECT asset_no FROM acting WHERE decision = 'delete')
)
WHERE object.complete
GROUP BY asset_no;

CREATE OR REPLACE TEMP VIEW lines AS
SELECT asset_no, turn, n, asset_id, store, decision, because, rule, rule_at, type, created,
    keep_until, delete_from, until, deadline, bytes,
    decision = 'delete' AND NOT stays AS last_copy,
    -- what 100ms alone has and a keep or hold wants: the moment it leaves (now, where its date
    -- cannot be trusted)
    CASE WHEN decision IN ('copy', 'unknown', 'waiting', 'lost', 'uncatalogued') AND needed
        AND NOT complete AND NOT safe AND (hosted OR elsewhere)
          AND (created IS NULL OR created + INTERVAL 15 DAY > $now)
         THEN coalesce(created + INTERVAL 15 DAY, $now) END AS leaves_at,
    elsewhere AND NOT hosted AS assumed,
    CASE decision WHEN 'copy' THEN coalesce(source, CASE WHEN hosted THEN 'hosted'
        ELSE 'elsewhere' END) END AS source,
    CASE WHEN decision IN ('copy', 'keep', 'delete') THEN json_object(
        'origin', list_transform(CASE WHEN folder IS NULL THEN whole[1:1] ELSE whole END,
            lambda o: struct_pack(key := o.key, size := o.size, version := o.version)),
        'folder', folder,
        'target', target,
        'made_of', CASE WHEN decision = 'copy' AND made_of IS NOT NULL THEN
            json_object('key', made_of, 'size', 0, 'version', made_of_version) END,
        'objects', CASE WHEN decision IN ('keep', 'delete') THEN
            list_transform(list_filter(objects, lambda o: decision = 'delete' OR o.complete),
                lambda o: struct_pack(key := o.key, size := o.size, version := o.version)) END,
        'removes', CASE WHEN purged_by IS NOT NULL THEN versions END,
        'removes_by', removes_by,
        -- What is broken under another name, as after a change of layout, stays where it is.
        'broken', list_transform(list_filter(objects, lambda o: list_contains(broken, o.key)
            AND (o.key = target OR ends_with(target, '/') AND starts_with(o.key, target))),
            lambda o: struct_pack(key := o.key, size := o.size, version := o.version)),
        'witnesses', witnesses,
        'doubt', doubt,
        'partial', source_partial,
        'lock_until', CASE WHEN decision IN ('copy', 'keep') AND store IN ($locking)
            THEN strftime(lock_until, '%Y-%m-%dT%H:%M:%SZ') END,
        'lock_mode', lock_mode,
        'facts', json_object('type', type, 'status', status, 'room_id', room_id, 'session_id',
            session_id, 'job_id', job_id, 'template_id', template_id, 'user_id', user_id,
            'peer_id', peer_id, 'path', split_part(path, '?', 1), 'size', size, 'duration',
                duration, 'created', created_text,
            'metadata', $metadata, 'thumbnails', thumbnails,
            -- what is cut off of a path could be what a hold asks for
            'not_known', CASE WHEN contains(path, '?') THEN list_append(coalesce(not_known, []),
                'path') ELSE not_known END)
    )::VARCHAR END AS action,
    also,
    CASE WHEN purged_by IS NOT NULL
        THEN len(list_filter(versions, lambda v: NOT v.marker))::INTEGER END AS versions
FROM (SELECT *, CASE decision WHEN 'copy' THEN CASE WHEN superseded THEN $beside
    ELSE $target END END AS target FROM (
    SELECT acting.*, assets.* EXCLUDE (asset_no, lies_hosted, lies_elsewhere, lies_nowhere, many), many
        OR reading.folder IS NOT NULL AS many, names.rule, names.rule_at, beside.rule AS also, source, reading.folder, whole,
        staying.asset_no IS NOT NULL AS stays, witnesses, there.objects, there.broken,
        there.versions, purging.rule AS removes_by,
            coalesce(there.superseded, false) AS superseded,
        reading.made_of, reading.made_of_version, reading.partial AS source_partial
    FROM acting
    JOIN assets USING (asset_no)
    LEFT JOIN names USING (clause_no)
    LEFT JOIN names AS beside ON beside.clause_no = also_no
    LEFT JOIN names AS purging ON purging.clause_no = purged_by
    LEFT JOIN reading USING (asset_no, store, decision)
    LEFT JOIN staying USING (asset_no, decision)
    LEFT JOIN held AS there ON there.asset_no = acting.asset_no AND there.store = acting.store
));

CREATE OR REPLACE TEMP VIEW quiet_lines AS
SELECT asset_no, asset_id, store, verdict AS decision, because[1] AS because, rule, rule_at,
    created, keep_until, delete_from, until, bytes
FROM weighed LEFT JOIN names USING (clause_no)
ANTI JOIN locking USING (asset_no, store)
WHERE verdict IN ('keep', 'unmanaged', 'lapses');
