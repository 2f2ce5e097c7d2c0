"""What the fleet shows of itself to machines that watch it."""
