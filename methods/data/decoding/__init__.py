"""How the pixels of a pass are there before they are asked for: workers, and a cache on disk."""
