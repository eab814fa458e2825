"""One module per subcommand: it parses, calls the library once, and prints."""
