"""The methods PipeFusion is held against, one file each, on the same view, fabric and sampler."""
