"""Who must hear of a move, and how it reaches them."""
