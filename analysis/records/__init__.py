"""Records on disk: read, checked, kept, and which of them are committed."""
