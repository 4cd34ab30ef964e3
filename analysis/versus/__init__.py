"""Every published row beside what this project has for it, a module a kind of row."""
