"""Quality of every method and setting: one record of `experiment=quality` as tables and figures."""
