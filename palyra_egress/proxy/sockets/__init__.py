"""What lies under a connection: dialled as it was pinned, heard to its last word, and reset."""
