"""Deployed networks: their fastest exact forms, their files, and their cards."""
