"""Real peers in other languages, and the suites that hold this library against them."""
