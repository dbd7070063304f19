"""The coordinator's side: orders out, replies in, the next model, and what people read about it."""
