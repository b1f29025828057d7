"""The logs of a sweep: reading the driver's, and keeping those of every pod."""
