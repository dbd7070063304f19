"""What hospital IT approved, what waits for it, and how both are shown (row 0 of the walk)."""

from client.approvals.store import ApprovalStore, Decision, Standing

__all__ = ["ApprovalStore", "Decision", "Standing"]
