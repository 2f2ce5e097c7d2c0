"""What is wrong with an installation, and what to do: the fleet's side, and what both share."""
