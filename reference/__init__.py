"""Pages of docs/reference, made from the code: `make reference` writes them, and a test keeps them current."""
