"""What a trial costs the driver, and how that grows with the number of trials.

`python -m tests.bench.scale --trials 5000` runs plain Ray Tune and a whole sweep on the same
number of no-op trials, one after the other, each in a separate process; then the sweep's parts
apart, without Ray. It prints a table and writes JSON. CPU seconds are the driver's own, all its
threads; the projection to MLflow, a separate process, stands apart; workers and Ray's daemons
are not counted.

The growth exponent is the slope of log(cost per trial) against log(number of trials): 0 where a
trial costs the same whenever it comes, 1 where it costs twice as much among twice as many.
"""
