"""AGD: a generator found by differentiable search under a budget, guided only by a teacher's outputs.

After AutoGAN-Distiller (Fu et al., ICML 2020, arXiv 2006.08198). Importing this package is cheap.
"""
