"""Profiles of hardware: measured on one's own machine, and fitted on published rows."""
