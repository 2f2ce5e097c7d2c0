"""A program in namespaces of its own, whose only way out is the proxy; and the proof of it."""
