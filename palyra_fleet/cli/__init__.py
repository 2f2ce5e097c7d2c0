"""The `palyra-fleet` command."""
