"""What the fleet is told when it starts: its settings, and the file they come from."""
