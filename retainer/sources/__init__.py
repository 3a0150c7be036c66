"""The 100ms API: what it lists, and the bytes behind it."""
