"""What makes decisions durable: the store protocol and its SQLite adapter."""
