"""The pages, one file each: choose, ask, draw."""
