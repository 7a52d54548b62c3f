"""The configuration: its keys, where values come from, and changes at run time."""
