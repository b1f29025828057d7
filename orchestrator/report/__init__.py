"""The report: the HTML page, its figures and tables, and the terminal."""
