"""Approvals: whether enough people signed the policy that is about to be put in force."""
