"""What crosses the wire: orders to sites, replies from sites, and how module tensors are packed.

Plain dataclasses over scalars and numpy arrays. The two apps put them into Flower's records; nothing here
knows Flower.
"""
