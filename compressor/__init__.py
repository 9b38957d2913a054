"""The core of pocketgan: generators, what they cost, and the methods that make them smaller.

Importing this package is cheap; torch comes in with the modules that touch tensors.
"""
