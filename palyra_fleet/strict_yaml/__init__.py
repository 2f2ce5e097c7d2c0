"""YAML that people write for us, read strictly, with the place of everything in it."""
