"""The statistics of the board: intervals, bootstrap, fronts. Arrays in, numbers out."""
