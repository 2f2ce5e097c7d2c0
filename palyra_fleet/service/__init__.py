"""What the fleet does when it is asked: each command decided, made durable, told to who waits."""
