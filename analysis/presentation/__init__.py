"""How results are written and drawn: columns, tables, looks of methods, figures, the terminal."""
