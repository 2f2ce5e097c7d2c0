"""The fleet over HTTP: two listeners, one table of routes (`routes.py`), problems as RFC 9457."""
