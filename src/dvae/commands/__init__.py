"""The command line and the scripts' commands."""
