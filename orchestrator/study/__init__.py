"""The study file, the spaces that it opens, and the checks before anything runs."""
