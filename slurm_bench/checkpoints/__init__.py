"""What lies on disk of a model, and how it gets to the GPU."""
