"""The command line, and what each script runs."""
