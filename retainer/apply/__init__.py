"""THE EFFECTS: run, copy, delete, verify, resume. Everything that changes the world is in this
folder."""
