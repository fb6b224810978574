"""Hole punching behind real NATs: two nodes that know each other's peer id and one bootstrap node."""
