"""Labelled inputs of the pages."""
