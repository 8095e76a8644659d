"""People, their tenants, roles, credentials and sign-ins."""
