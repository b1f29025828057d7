"""The training loop, its recipe, and the evaluation of a network."""
