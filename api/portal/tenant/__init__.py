"""Pages of one customer: people, policy, connections and data."""
