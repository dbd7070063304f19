"""Pages and pictures of a hospital's own recordings; they stay in the building."""
