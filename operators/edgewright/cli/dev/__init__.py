"""Real servers on loopback, for tests and for people who want to play: each is its project's own program."""
