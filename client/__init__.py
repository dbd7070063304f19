"""The hospital's side: reads its own data, trains locally, and lets out only what the gate passes."""
