"""What adversarial training needs beside a generator: discriminators, losses, pool, schedule."""
