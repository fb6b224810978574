"""How fast this library is, next to other implementations and to what the machine can do; see README.md."""
