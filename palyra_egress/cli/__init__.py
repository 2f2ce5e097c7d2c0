"""The commands of `palyra-egress`."""
