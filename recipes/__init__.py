"""How what ships inside the package was made. Run from the root of the repository; it is not installed."""
