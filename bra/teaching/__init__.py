"""The worked example, and the measurements of the lesson."""
