-- The plan's rows, in their order: copies by deadline, deletes, then everything else; each with its reason.
--
-- Given: decided, known, assets, copies, stores; names(clause_no, rule, rule_at)
-- Asked: $now, $target (the key of a new copy, by store), $in_scope (the --only match, over the assets with `created`)
-- Made:  lines, with the columns of planfile.COLUMNS, and quiet_lines, with some of them

CREATE OR REPLACE TEMP TABLE acting AS
SELECT decided.asset_no, decided.store::VARCHAR AS store, decision, assets.* EXCLUDE (asset_no, many), known.created, hosted,
    CASE WHEN decided.many THEN 'many-objects' WHEN ($in_scope) IS NOT TRUE THEN 'out-of-scope' END AS set_aside
FROM decided JOIN assets USING (asset_no) JOIN known USING (asset_no)
WHERE decision IN ('copy', 'delete');

CREATE OR REPLACE TEMP TABLE held AS
SELECT asset_no, store, complete, objects FROM copies WHERE objects IS NOT NULL AND asset_no IN (SELECT asset_no FROM acting);

-- Where a copy is read from: a store of the same kind of cloud first, in the order they are declared; else 100ms.
CREATE OR REPLACE TEMP TABLE origin AS
SELECT acting.asset_no, acting.store,
    arg_min(held.store, (here.scheme <> there.scheme, there.rank)) AS source,
    arg_min(held.objects[1], (here.scheme <> there.scheme, there.rank)) AS source_object
FROM acting
JOIN held ON held.asset_no = acting.asset_no AND held.complete
JOIN stores AS there ON there.store = held.store
JOIN stores AS here ON here.store = acting.store
WHERE acting.decision = 'copy'
GROUP BY acting.asset_no, acting.store;

-- The complete copies that make a delete safe are those that the asset needs; and without a complete copy that stays, a
-- delete takes the last one.
CREATE OR REPLACE TEMP TABLE staying AS
SELECT kept.asset_no,
    list(struct_pack(store := kept.store, key := object.key, size := object.size, version := object.version)
         ORDER BY kept.store, object.key) FILTER (kept.needed) AS witnesses
FROM (
    SELECT decided.asset_no, decided.store::VARCHAR AS store, decided.needed, unnest(held.objects) AS object
    FROM decided JOIN held ON held.asset_no = decided.asset_no AND held.store = decided.store::VARCHAR
    WHERE decided.complete AND decided.decision <> 'delete' AND decided.store NOT IN ('hosted', 'elsewhere')
      AND decided.asset_no IN (SELECT asset_no FROM acting WHERE decision = 'delete')
) AS kept
WHERE object.complete
GROUP BY kept.asset_no;

CREATE OR REPLACE TEMP TABLE action AS
SELECT acting.asset_no, acting.store, acting.type, acting.set_aside,
    acting.decision = 'delete' AND staying.asset_no IS NULL AS last_copy,
    CASE acting.decision WHEN 'copy' THEN coalesce(origin.source, CASE WHEN hosted THEN 'hosted' ELSE 'elsewhere' END) END AS source,
    CASE WHEN origin.source IS NOT NULL THEN
        json_object('key', source_object.key, 'size', source_object.size, 'version', source_object.version)::VARCHAR END AS source_object,
    CASE acting.decision WHEN 'copy' THEN $target END AS target,
    CASE acting.decision WHEN 'delete' THEN
        to_json(list_transform(there.objects, lambda o: struct_pack(key := o.key, size := o.size, version := o.version)))::VARCHAR END AS objects,
    CASE acting.decision WHEN 'delete' THEN to_json(staying.witnesses)::VARCHAR END AS witnesses,
    json_object('type', type, 'status', status, 'room_id', room_id, 'session_id', session_id, 'user_id', user_id, 'peer_id', peer_id,
        'path', split_part(path, '?', 1), 'size', size, 'duration', duration, 'created', created_text, 'metadata', $metadata,
        'not_known', not_known)::VARCHAR AS facts
FROM acting
LEFT JOIN origin USING (asset_no, store)
LEFT JOIN staying USING (asset_no)
LEFT JOIN held AS there ON there.asset_no = acting.asset_no AND there.store = acting.store;

-- What a person acts on or worries about comes first, and in order; what is kept, unmanaged or lapses follows by asset.
CREATE OR REPLACE TEMP TABLE lines AS
SELECT (row_number() OVER ())::INTEGER - 1 AS n, * EXCLUDE (turn, asset_no)
FROM (
    SELECT
        CASE WHEN action.asset_no IS NULL OR action.set_aside IS NOT NULL THEN 2 WHEN decision = 'copy' THEN 0 ELSE 1 END AS turn,
        decided.asset_no, assets.asset_id, decided.store::VARCHAR AS store, decision, nullif(array_to_string(because, ', '), '') AS because, names.rule, names.rule_at,
        action.type, decided.created, keep_until, delete_from, until, deadline, coalesce(bytes, assets.size) AS bytes, set_aside,
        coalesce(last_copy, false) AS last_copy,
        -- what 100ms alone has and a keep or hold wants: the moment it leaves (now, where its date cannot be trusted)
        CASE WHEN decision IN ('copy', 'unknown') AND needed AND NOT complete AND NOT safe AND (hosted OR elsewhere)
              AND (decided.created IS NULL OR decided.created + INTERVAL 15 DAY > $now)
             THEN coalesce(date_trunc('second', decided.created + INTERVAL 15 DAY), $now) END AS leaves_at,
        elsewhere AND NOT hosted AS assumed,
        action.source, source_object, target, action.objects, witnesses, facts
    FROM decided
    JOIN assets USING (asset_no)
    LEFT JOIN names USING (clause_no)
    LEFT JOIN action ON action.asset_no = decided.asset_no AND action.store = decided.store
    WHERE decision IN ('copy', 'delete', 'blocked', 'lost', 'unknown', 'waiting')
    ORDER BY turn, CASE WHEN turn = 0 THEN deadline END NULLS LAST, decided.asset_no, decided.store
);

CREATE OR REPLACE TEMP VIEW quiet_lines AS
SELECT assets.asset_id, decided.store::VARCHAR AS store, decision, names.rule, names.rule_at, decided.created, keep_until, delete_from, until,
    coalesce(bytes, assets.size) AS bytes
FROM decided JOIN assets USING (asset_no) LEFT JOIN names USING (clause_no)
WHERE decision IN ('keep', 'unmanaged', 'lapses')
ORDER BY decided.asset_no, decided.store;
