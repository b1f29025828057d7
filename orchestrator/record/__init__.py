"""The record of a study: its log, its trials, the ledger that writes them, and their evidence."""
