"""How fast isoflop is beside the usual ways of doing the same: `python -m tests.bench.speed`."""
