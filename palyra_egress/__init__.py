"""The egress proxy: a pure judge (`service.py`) and the enforcement around it (`proxy/`)."""
