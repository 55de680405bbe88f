"""Models that can be looked into."""
