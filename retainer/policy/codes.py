"""Every diagnostic code, its title and what `retainer help CODE` says of it. A code is never given
a second meaning."""

from __future__ import annotations

CODES: dict[str, tuple[str, str]] = {
    "Y001": (
        "not YAML",
        "The file cannot be read as YAML 1.2. The usual causes are a tab used for indentation, a "
        "colon without a space after it, or a quote that is not closed.",
    ),
    "Y002": (
        "duplicate key",
        "A mapping names the same key twice. YAML readers disagree on which one counts, so neither "
        "does: remove one.",
    ),
    "Y003": (
        "tag",
        "Tags such as `!!python/object` or `!include` make a reader build something else than what "
        "is written. Policies are plain data: remove the tag.",
    ),
    "Y004": (
        "merge key",
        "`<<:` is not part of YAML 1.2 and hides what a rule says from its reader. Write the keys "
        "out.",
    ),
    "Y005": (
        "aliases",
        "Aliases (`*name`) make this file grow by more than 10,000 values, or one refers to "
        "itself. Write the values out.",
    ),
    "Y006": (
        "too large",
        "A policy file may have 1 MiB. Split it, or look at how it was generated.",
    ),
    "Y007": ("not UTF-8", "Policy files are UTF-8 text without control characters."),
    "Y008": (
        "one document",
        "A file holds exactly one YAML document, and that is a mapping with `version: 1`.",
    ),
    "P101": (
        "unknown key",
        "Nothing of this name is known here. An unknown key is an error, since a rule with a "
        "misspelt key would do something else than its author thinks.",
    ),
    "P102": ("missing key", "This key must be there."),
    "P103": (
        "wrong kind of value",
        "The value has another kind than the one that is needed here: text, a number, a list or a "
        "mapping.",
    ),
    "P104": ("unknown value", "Only the values that are listed are allowed here."),
    "P105": (
        "not an id",
        "An id has letters, digits, `-`, `_` and `.`, begins with a letter or digit, and is at "
        "most 64 characters long. It appears in every plan and in the journal.",
    ),
    "P106": ("version", "The first key of every file is `version: 1`."),
    "P201": (
        "id used twice",
        "Ids are unique over all files, for rules, holds and erasures together: a reason in a plan "
        "names exactly one of them. An asset stands once at most under `accept`, and under `losses`.",
    ),
    "P202": (
        "store not declared",
        "Rules can only name stores that `retainer.yaml` declares under `stores:`.",
    ),
    "P203": (
        "then: delete with forever",
        "A keep that lasts for ever is never over, so `then: delete` can never happen. Give the "
        "keep an end, or leave `then` out.",
    ),
    "P204": (
        "for not longer than after",
        "Both are counted from the creation of the recording: `for: 1y, after: 90d` keeps it from "
        "day 90 to the end of the year. `for` must end after `after` on every starting day; months "
        "have 28 to 31 days.",
    ),
    "P205": (
        "a rule that does nothing",
        "A rule needs `keep`, `delete` or `at_most`; a delete or ceiling that waits for ever does "
        "nothing either.",
    ),
    "P206": (
        "no rule file",
        "There is no `*.yaml` or `*.yml` file under `policies/`. Nothing would be kept and nothing "
        "deleted, which is hardly what was meant. `retainer init` writes a sensible start.",
    ),
    "P207": (
        "empty match",
        "An empty `match` matches nothing, which is always a mistake. `match: all` is the way to "
        "say everything.",
    ),
    "P208": (
        "not a period",
        "Periods are written `36h`, `30d`, `2w`, `6mo`, `7y`, `forever`, or in ISO 8601 (`P7Y`, "
        "`P1Y6M`, `PT36H`). `m` is refused (minutes or months?), as are fractions and negatives.",
    ),
    "P209": (
        "a credential in YAML",
        "Policies and settings are read by many people and kept for ever in git. Credentials come "
        "from the environment: HMS_ACCESS_KEY and HMS_SECRET, or HMS_MANAGEMENT_TOKEN (each also "
        "as *_FILE), and the clouds' own credential chains. Remove it here and revoke it: it is in "
        "the git history.",
    ),
    "P210": (
        "reserved store name",
        "`hosted` and `elsewhere` are what retainer calls the places that are not stores; no store "
        "can be named so, and no rule can keep or delete there.",
    ),
    "P211": (
        "then without keep",
        "`then` says what happens when a keep's period is over, so it needs a `keep`.",
    ),
    "P212": (
        "range upside down",
        "`min` is larger than `max`, or `after` is not before `before`: the range matches nothing.",
    ),
    "P213": (
        "not a date",
        "Dates are written `2026-11-22` (the start of that day in `timezone`) or "
        "`2026-11-22T10:00:00Z`, with a zone.",
    ),
    "P214": (
        "locked for ever",
        "A store with `lock:` locks each copy until its keep is over. A lock without an end could "
        "never be taken back, not even by an erasure, so a keep `for: forever` is refused there.",
    ),
    "P215": (
        "not read",
        "Everything under `policies/` is read as a policy or is a mistake, since a hold that is "
        "passed over protects nothing: a link that leads nowhere or to a folder, what may not be "
        "read, and names such as `HOLDS.YAML`, `holds.json` or `holds.yaml.txt`. Only `README*`, "
        "`*.md`, `CODEOWNERS` and hidden files are passed over, and hidden folders without "
        "policies in them; a Kubernetes ConfigMap's `..data` works.",
    ),
    "P216": (
        "text that hides",
        "Text with control, bidirectional or zero-width characters looks different from what it "
        "is. It is shown with escapes such as `\\x1b`; write it without.",
    ),
    "P217": (
        "a comma in a name",
        "Between quotes or not, `board, legal` is one name with a comma in it. A list of two names "
        "is `[board, legal]`.",
    ),
    "P218": (
        "blanks around a text",
        "A name or id that ends in a blank or a line end, as `room: |` gives it, is none that "
        "anything has: a hold so written would protect nothing. Write it on one line, without "
        "blanks around it.",
    ),
    "P219": (
        "a word that is not known here",
        "100ms adds types and statuses. One that this retainer does not know is matched letter by "
        "letter; look that it is spelt as 100ms spells it.",
    ),
    "P220": (
        "decided both ways",
        "One recording stands under `decided:` as one to erase and as one that stays. Nothing is "
        "guessed: take out the entry that is wrong.",
    ),
    "S301": (
        "a store inside another",
        "No store lies inside another's prefix: a listing of one would show the objects of the "
        "other, and a delete could take what the other needs. So are the reports of a bucket.",
    ),
    "S302": (
        "a store in a hosted bucket",
        "A bucket under `source.hosted` is 100ms's own; what lies there lapses, and nothing can be "
        "kept there.",
    ),
    "S303": (
        "not a store url",
        "A store's url is `s3://bucket/prefix`, `gs://bucket/prefix` or `file:///absolute/folder`, "
        "without `..`, a query, a user or a password.",
    ),
    "S304": (
        "not a layout",
        "A layout is a key template with the fields {type} {yyyy} {mm} {dd} {room_id} {session_id} "
        "{asset_id} {filename}; it must contain {asset_id}, or be `100ms`.",
    ),
    "S305": (
        "not a time zone",
        "Time zones have IANA names, such as `UTC`, `Europe/Berlin` or `Asia/Kolkata`.",
    ),
    "S306": ("not a size", "Sizes are written as bytes or with a unit: `500`, `100GB`, `2TiB`."),
    "S307": (
        "no settings",
        "`retainer.yaml` is looked for in the working directory and upward. `retainer init` writes "
        "one.",
    ),
    "S308": (
        "not a bucket, or not a host",
        "`source.media_hosts` lists hosts, as their names alone. `source.hosted` lists buckets that are 100ms's own, as scheme and bucket with shell "
        "patterns (`s3://hms-prod-*`). Whether an asset is hosted depends on its bucket alone, so "
        "a path behind it could never match.",
    ),
    "S309": (
        "this store cannot",
        "A setting that this kind of store does not have: folders have no storage class, key, tags "
        "or locks; tags are S3 only; a bucket that 100ms uploads to is never written to. Reports "
        "(`listing.inventory`) are of s3:// and gs:// alone, and lie in a folder of the same cloud.",
    ),
    "S310": (
        "not the API's address",
        "`source.url` is an https address. Over http:// anybody on the way reads the management "
        "token and can answer in place of 100ms, so it needs `allow_http: true` beside it; on this "
        "machine (127.0.0.1, localhost) it does not.",
    ),
    "S311": (
        "not a state folder",
        "`state:` names the folder in which retainer keeps its record. It cannot be under "
        "`policies/`, where everything is read as a policy.",
    ),
    "S312": (
        "a price of no store",
        "`prices:` says what a declared store costs, by its name: dollars for a GB and month "
        "(`storage`), for 1,000 objects written (`put`), for a GB read (`retrieval`) or taken out "
        "of the cloud (`egress`), and for how many days an object is billed at the least.",
    ),
    "T401": (
        "a test that names nothing",
        "A test names an asset or a rule that does not exist in it, or a file has no tests. It "
        "would pass without proving anything, so it is an error.",
    ),
    "T402": (
        "a policy test failed",
        "What is decided for a case of a test is not what it expects. Either the policy or the "
        "expectation is wrong; `retainer test -v` lists every case.",
    ),
    "L501": (
        "everything under a delete",
        "`match: all` beside a delete, a ceiling or an erasure also takes what is not thought of "
        "today: types that 100ms adds, rooms of another team. Name what is meant.",
    ),
    "L502": (
        "matches nothing",
        "Two conditions of this match exclude each other, so no recording can ever meet both.",
    ),
    "L503": (
        "covered by another rule",
        "Another rule asks for the same, or more, of every recording that this one matches, so it "
        "changes nothing. Perhaps its match was meant to be wider.",
    ),
    "L504": (
        "matched nothing in the snapshot",
        "No recording of the snapshot is matched, even for what is not certain. That is fine for a "
        "rule about things to come, and else a misspelling.",
    ),
    "L505": (
        "a store that nothing uses",
        "No rule and no hold names it. What lies there is never touched.",
    ),
    "L506": (
        "no such region",
        "AWS has no region of that name, as far as the installed botocore knows.",
    ),
    "L507": ("no such storage class", "The cloud has no storage class of that name."),
    "L508": (
        "shorter than the class's minimum",
        "Colder classes are billed for a least number of days, also when the object is deleted "
        "before.",
    ),
    "L509": (
        "dearer than the standard class",
        "The least number of days that this class is billed for costs more than the standard class "
        "would for as long as the rule keeps. By list prices; your contract may differ.",
    ),
    "L510": (
        "for ever, and nobody's",
        "What is kept for ever is never looked at again unless someone answers for it. Name an "
        "`owner`.",
    ),
    "L511": (
        "by the name of a room",
        "Workspaces with HIPAA get hashed names, which no glob fits; and a room that is renamed is "
        "matched by name only where all of its names match. Ids and templates do not change.",
    ),
    "L512": (
        "versions that are hidden first",
        "`versions: all` takes what lies there with every version of it. An earlier delete of the "
        "same recordings leaves the versions behind, and what is hidden then is in no listing.",
    ),
}
