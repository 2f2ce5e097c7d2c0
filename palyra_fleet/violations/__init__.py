"""What proxies saw: evidence intake, and what a violation costs."""
