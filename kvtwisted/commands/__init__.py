"""What can be asked of the store: one module a command. Pure: nothing here knows of transports, stores or threads."""
