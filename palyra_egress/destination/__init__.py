"""Where a request wants to go: host names and patterns, address classes, resolving."""
