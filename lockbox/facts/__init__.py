"""The facts of a request, each declared once: its column, its wording, and the places that show it."""
