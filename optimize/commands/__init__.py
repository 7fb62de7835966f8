"""One use case a file: what a command does, without its flags and its screen."""
