"""The customer's own side, and who is who at the vendor: tenants, members, policies, delegates, invitations."""
