"""Sources of images, binarization and batches; the base class of every task's data."""
