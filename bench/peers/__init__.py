"""Other ways to keep deadlines, put to the same work; they use libraries that the product does not need."""
