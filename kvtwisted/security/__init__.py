"""Who may do what, and how much: one table under both transports."""
