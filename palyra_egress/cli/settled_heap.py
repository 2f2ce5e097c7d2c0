"""Keeps what a program made at its start out of every later collection of garbage.

A full collection looks at every object there is and stops the loop meanwhile; everybody waits for
it. Modules, tables and the compiled policy of the start are a large part of a small proxy's
objects, and live as long as the program does (decision 0043).
Source: gc.freeze of Python's gc module.
"""

import gc


def settle_heap() -> None:
    """Call once, when everything is open and before the first request: what is garbage goes, and
    what is left is not looked at again. It takes as long as one full collection."""
    gc.collect()
    gc.freeze()
