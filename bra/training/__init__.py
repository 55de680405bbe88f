"""Training of the demonstration models: from a folder of pictures to weights with a model card."""
