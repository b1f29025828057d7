"""The board: rows in, a leaderboard with intervals and tests out. Pure functions of values."""
