"""Records in, tables and figures out: pandas, pyarrow and matplotlib, never torch and never an experiment."""
