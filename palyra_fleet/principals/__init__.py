"""Who operates the fleet, and what each may do."""
