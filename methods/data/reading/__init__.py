"""Labelled images out of folders, Parquet files and the hub: found, checked and decoded."""
