"""Pictures in and out of files and tensors."""
