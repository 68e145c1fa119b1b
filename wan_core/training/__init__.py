"""Training: the VAE, an expert, and LoRA."""
