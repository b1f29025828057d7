"""The statistics of the board: intervals, contrasts, families of tests, power, P(best), fronts."""
