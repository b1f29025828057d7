"""What a study's readers ask of a store, answered without MLflow where that is an SQLite file."""
