"""One guard per connection: what the core decides about each step of it."""
