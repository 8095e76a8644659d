"""Administration of tenants and vendor staff: members, policies, delegates, invitations, webhooks, audit access."""
