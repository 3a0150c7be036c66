"""THE DECISION, pure: rules -> SQL predicates, decide.sql, limits. Nothing here reads a clock, a
file or a network."""
