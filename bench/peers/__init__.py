"""Other ways of keeping deadlines, put to the same work; they run on libraries that the product does not need."""
