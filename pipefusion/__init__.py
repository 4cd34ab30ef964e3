"""PipeFusion: patch-level pipeline parallelism for diffusion transformers (arXiv 2405.14430)."""
