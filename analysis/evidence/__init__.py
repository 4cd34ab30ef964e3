"""Evidence: published numbers, what is suspect about them, and what is known here beside each.

`published.py` reads the rows; `doubts.py` marks them; `claim.py` has the one comparison and its verdict. Claims,
contradictions and the table of published numbers beside ours are views of the same rows.
"""
