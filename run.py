"""`python run.py key=value ...`: one run of one method; `-m` sweeps, `experiment=NAME` is a named set of runs."""

import sys

# Under the guard, because every rank imports this file too.
if __name__ == "__main__":
    from experiments.command.cli import leave, main

    leave(main(sys.argv[1:]))
