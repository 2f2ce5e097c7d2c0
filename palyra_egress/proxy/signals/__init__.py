"""What a running proxy tells about itself: live view, health, metrics."""
