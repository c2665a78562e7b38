"""Images and their way into batches; the contract of any task's data."""
