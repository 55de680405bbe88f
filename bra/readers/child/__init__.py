"""What runs apart, in a bounded process that never imports torch."""
