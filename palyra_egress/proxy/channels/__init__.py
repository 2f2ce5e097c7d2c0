"""Ways to know who is at the other end of a connection before it says a word of HTTP."""
