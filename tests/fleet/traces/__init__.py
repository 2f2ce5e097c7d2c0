"""Traces: context, settings, the exporter, and calls of the API."""
