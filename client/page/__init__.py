"""The hospital's status page: what runs, what left, what privacy is spent; read only, in the building."""
