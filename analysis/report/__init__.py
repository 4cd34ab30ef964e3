"""The report as one HTML page."""

from __future__ import annotations

from analysis.report.page import write

__all__ = ["write"]
