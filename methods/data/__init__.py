"""Images: embedded sets, folders, Parquet files and Hugging Face, read into splits."""
