"""Translators from other tools' policy files; each module knows one tool's format."""
