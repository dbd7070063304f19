"""The journal: what left the building, in lines that cannot be changed unnoticed."""
