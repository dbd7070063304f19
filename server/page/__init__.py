"""The study page: what the files of a run say, as one page for the people who answer for it."""
