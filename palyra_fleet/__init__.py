"""The fleet service: who a worker is, what it may do now, and what stops it."""
