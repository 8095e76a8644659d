"""What `make check` holds about the sources as a whole: their names, statements, codes, wording and pages."""
