"""How settings are declared, read from file, environment and command line, and shown."""
