"""What pages ask for: the only caches, the only torch."""
