"""Trials that end before their full length, and those that pause meanwhile."""
