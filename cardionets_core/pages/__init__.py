"""Pages for people: one look, charts drawn here, and a loopback server for a page that changes."""
