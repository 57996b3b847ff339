"""One-shot face video re-enactment using the hybrid latent spaces of StyleGAN2 (arXiv 2302.07848)."""

__version__ = '0.1.0'
