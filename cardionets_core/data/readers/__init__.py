"""One file a format: each reads one record, or refuses it with a reason (step 2 of the walk)."""
