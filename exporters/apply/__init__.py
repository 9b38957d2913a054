"""Generators and exported files on whole pictures of any size: tiled, streamed, resumable."""
