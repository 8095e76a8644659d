"""Who there is: tenants, people, their roles and their tokens."""
