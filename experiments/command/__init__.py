"""The command line: composed, checked, handed to a launcher."""
