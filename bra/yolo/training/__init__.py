"""Training of the detectors that are shipped."""
