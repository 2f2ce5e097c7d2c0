"""The versions of mitmproxy that the whole test suite has passed with.

We subclass its connection handler and take over its layers, so another version may let something
through that this one does not. tests/project holds the locked version against this list.
"""

from typing import Final

TESTED_MITMPROXY: Final = frozenset({"12.2.3"})
