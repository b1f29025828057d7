"""What it means: rows in, a leaderboard with intervals and tests out. Pure functions of values."""
