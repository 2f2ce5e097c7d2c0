"""The worker's side: the launcher that vouches, the session, and the runner of programs."""
