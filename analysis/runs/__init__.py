"""Folders of runs: their frames, pictures, timelines, and two of them side by side."""
