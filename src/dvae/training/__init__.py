"""What the training of every task shares."""
