"""What people ask about the policy in force, answered from the tables that enforce it."""
