"""Traces of both programs, by OpenTelemetry where it is installed and asked for."""
