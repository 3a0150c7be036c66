"""YAML -> rules: load (positions), schema (what is allowed), parse (to nouns), lint (across files),
codes (help)."""
