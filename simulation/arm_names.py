"""Names of the arms of a comparison, known without loading what trains them."""

ARMS = ("federated", "unaligned", "pooled", "alone")
FEDERATED = "federated"
