"""Tables and files that open anywhere."""
