"""Who belongs to the consortium: its authority, the registry of its sites, and their startup kits."""
