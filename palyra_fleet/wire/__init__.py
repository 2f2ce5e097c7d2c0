"""What travels between workers, proxies, operators and the fleet: models, envelopes, proofs."""
