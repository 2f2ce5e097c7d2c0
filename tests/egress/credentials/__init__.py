"""Mirrors `palyra_egress.credentials`."""
