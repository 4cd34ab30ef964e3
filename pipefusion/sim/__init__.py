"""Simulated worlds: N logical ranks in one process, in virtual time."""
