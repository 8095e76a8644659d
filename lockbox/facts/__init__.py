"""The facts of a request, each declared once: its column, its words, and who says it where."""
