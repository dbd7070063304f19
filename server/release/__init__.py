"""The hand-over of a model: what leaves the consortium, with its card, checksums and signature (step 14)."""
