"""THE RECORD: every intention before it is acted on, every outcome after, in an append-only,
hash-chained file."""
