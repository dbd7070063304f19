"""The SuperLink as a consortium can bear it: what the sites reach, and what the coordinator alone may do."""
