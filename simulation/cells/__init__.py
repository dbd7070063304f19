"""Many studies on the same hospitals: each in a process of its own, resumable."""
