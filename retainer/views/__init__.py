"""Values -> text. Nothing here reads or writes anything."""
