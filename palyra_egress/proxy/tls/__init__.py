"""TLS that is ended, opened anew, or looked at without being opened."""
