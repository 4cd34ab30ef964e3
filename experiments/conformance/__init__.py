"""Whether what another program computed is PipeFusion: its bundle against a plain reference, and what explains it.

`bundle.py` reads and checks the folder, `reference.py` is the loop, `deviations.py` lists what is known to go wrong,
`compare.py` finds where two results part, `report.py` is `experiment=conformance`. The format: docs/conformance.md.
"""
