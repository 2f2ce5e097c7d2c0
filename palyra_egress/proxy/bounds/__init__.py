"""How much, how often, how long, how many at once."""
