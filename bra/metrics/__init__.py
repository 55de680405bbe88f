"""What a routing is worth: recall, controls, hubs, overlap of labels."""
