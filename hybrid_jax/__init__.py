"""One-shot face video re-enactment with StyleGAN2's hybrid latent spaces (arXiv 2302.07848)."""

__version__ = '0.1.0'
