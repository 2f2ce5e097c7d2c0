"""Bytes that are passed on unseen, and counted."""
