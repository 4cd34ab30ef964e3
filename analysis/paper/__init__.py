"""The tables and figures of the PipeFusion paper, each from records alone."""
