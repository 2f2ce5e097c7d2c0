"""The program on a node's side: pairs once, then registers, streams, answers and rotates."""
