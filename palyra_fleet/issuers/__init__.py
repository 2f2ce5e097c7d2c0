"""Tokens that other services sign for principals: which issuers are believed, and how far."""
