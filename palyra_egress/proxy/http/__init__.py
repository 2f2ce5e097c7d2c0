"""HTTP/1 and HTTP/2 with workers and servers: heads, bodies, trailers, in one canonical form."""
