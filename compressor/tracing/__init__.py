"""Following the channels of a traced network step by step; `compressor.graph` is what comes of it."""
