"""pocketgan: makes trained image generators small and fast enough for a phone, and proves it."""

__version__ = "0.1.0"
