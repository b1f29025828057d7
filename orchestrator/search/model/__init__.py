"""The model of our own sampler: Gaussian processes, and the gain of hypervolume by them."""
