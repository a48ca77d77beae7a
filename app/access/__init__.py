"""Who may do what: tokens and the permissions that routes declare."""
