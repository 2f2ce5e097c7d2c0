"""The audit log: one hash-chained JSON line per verdict, and its verifier."""
