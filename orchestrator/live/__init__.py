"""A sweep while it runs: how far it is, what waits, and the page that follows its log."""
