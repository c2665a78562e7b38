"""In-memory image data."""
