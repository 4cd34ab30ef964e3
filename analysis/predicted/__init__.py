"""Predictions for named hardware: latency, plans, bandwidth, load."""
