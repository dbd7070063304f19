"""Our own log of either side: structured lines of an allow-list, free of patient data by construction."""
