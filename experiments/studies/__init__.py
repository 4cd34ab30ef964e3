"""Studies: what is measured over a grid of runs, a file each; `experiments/study.py` and `runner.py` are the engine."""
