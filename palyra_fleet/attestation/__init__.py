"""Who a worker is: nonces, evidence, what is expected of it, and the verifier."""
