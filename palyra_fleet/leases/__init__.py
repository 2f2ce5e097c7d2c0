"""What is lent: grants, leases with fences, workspace scopes, egress credentials."""
