"""Messages and stubs of NodeService, made by `make proto`; not to be edited."""
