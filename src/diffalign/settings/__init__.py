"""SETTINGS: what a user chooses, as plain data; nothing here loads torch."""
