"""What `make check` checks in all sources: names, SQL statements, problem codes, wording and pages."""
