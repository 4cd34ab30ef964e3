"""How stale K, V are and what that does: one record of `experiment=staleness` as tables and figures."""
