"""Nodes: what is remembered of them, what they are asked to do, and the service they call."""
