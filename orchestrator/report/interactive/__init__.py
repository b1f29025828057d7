"""The interactive side of the page: its data, its scripts, and the libraries that draw."""
