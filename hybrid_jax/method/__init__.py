"""The paper: encoder, hybrid latents, losses, objective and Cyclic Manifold Adjustment."""
