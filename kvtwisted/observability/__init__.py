"""What operators look at: the catalogue of metrics and their text, the logs, and the trails of who did what."""
