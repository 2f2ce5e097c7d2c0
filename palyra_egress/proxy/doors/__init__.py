"""Ways in beside HTTP: SOCKS5 and connections that netfilter redirects."""
