"""The ledger: facts, commands and events of every worker, as a pure state machine."""
