"""What happened: the log, the trials, the ledger that writes them, and the evidence they leave."""
