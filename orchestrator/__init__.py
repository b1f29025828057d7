"""Sweeps over methods: search, confirm, ledger, store, board; knows methods, not science."""
