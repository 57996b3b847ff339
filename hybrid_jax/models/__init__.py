"""Networks of others, without weights: StyleGAN2, IR-SE50, LPIPS, ArcFace, Inception, I3D."""
