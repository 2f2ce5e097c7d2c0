"""The web console: pages for people who operate the fleet, and their JSON twins."""
