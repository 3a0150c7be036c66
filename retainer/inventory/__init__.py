"""What exists: collect (listings -> facts), locate (an asset's path -> its objects), facts (the
tables)."""
