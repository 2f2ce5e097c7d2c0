"""The fleet's events, handed on to a SIEM: at least once, in order, and holding up nobody."""
